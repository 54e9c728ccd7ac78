//! Which core does what: servers have the first, clients the last, so that a client never takes time from
//! what is measured.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Core {
    Server,
    Client,
}

/// Does the work on a thread that is bound to the core; processes and threads started there are bound too.
pub(crate) fn on<T: Send>(core: Core, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let bound = scope.spawn(|| {
            bind(core)?;
            work()
        });
        match bound.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn bind(core: Core) -> Result<()> {
    let allowed = sched_getaffinity(None).context("ask which cores may be used")?;
    let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let first = usable.next().context("there is no core")?;
    let chosen = match core {
        Core::Server => first,
        Core::Client => usable.next_back().unwrap_or(first),
    };
    let mut set = CpuSet::new();
    set.set(chosen);
    sched_setaffinity(None, &set).context("bind to a core")
}
