//! What a process uses, as the kernel counts it, and which processes there are.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A process, by its id.
pub(crate) type Id = i32;

/// Processor time since it began. The kernel counts that of all threads, also of those that ended, in ticks,
/// and that of the living ones to the nanosecond; both are too small at most, so the larger is taken.
pub(crate) fn cpu(process: Id) -> Result<Duration> {
    Ok(cpu_in_ticks(process)?.max(cpu_of_the_living(process)))
}

/// Resident memory in MiB, pages shared with others counted in full.
pub(crate) fn rss_mib(process: Id) -> Result<f64> {
    rollup(process, "Rss:")
}

/// Resident memory in MiB, shared pages divided among those who share them.
pub(crate) fn pss_mib(process: Id) -> Result<f64> {
    rollup(process, "Pss:")
}

/// Processes whose command line the closure accepts; words are separated by blanks.
pub(crate) fn find(accepts: impl Fn(&str) -> bool) -> Vec<Id> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Id>().ok());
    ids.filter(|id| {
        let text = std::fs::read(Path::new("/proc").join(id.to_string()).join("cmdline"));
        let text = text.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
        text.is_ok_and(|text| accepts(text.trim_end()))
    })
    .collect()
}

/// The children of a process.
pub(crate) fn children(process: Id) -> Vec<Id> {
    let text = read(process, &format!("task/{process}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}

fn cpu_in_ticks(process: Id) -> Result<Duration> {
    let text = read(process, "stat")?;
    // The name may hold anything; the numbers begin behind its closing bracket.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || {
        ticks
            .next()
            .and_then(Result::ok)
            .context("read processor time")
    };
    let ticks = next()? + next()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Zero where the kernel does not count it.
fn cpu_of_the_living(process: Id) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let nanos = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn rollup(process: Id, name: &str) -> Result<f64> {
    let text = read(process, "smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("read {name} of process {process}"))? / 1024.0)
}

fn read(process: Id, file: &str) -> Result<String> {
    let path = format!("/proc/{process}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
}
