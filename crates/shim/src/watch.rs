//! The shim's life while the unit runs: one poll over the unit's output, its death, orders and deadlines.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hostler_model::Exit;
use hostler_model::spec::{DisconnectPolicy, WorkloadSpec};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::capture::Capture;
use super::child::Child;
use super::orders::{self, Order};
use super::{RunOf, now, since_boot};
use crate::disk;
use crate::kernel;
use crate::line::Stream;
use crate::record::{ExitRecord, ProcessName};

/// Between two looks at killed processes that have not ended yet.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);
/// Looks for commands that others started in the unit; one that the kernel holds must not hold up the end.
const MOST_LOOKS: u32 = 400;
/// Between two tries to record an exit on a disk that does not take it.
const RECORD_PAUSE: Duration = Duration::from_millis(200);
const READ_BYTES: usize = 32 * 1024;
const MOST_LAST_READS: usize = 1024;

/// What the shim holds while its unit lives.
pub(super) struct Living {
    pub(super) child: Child,
    pub(super) control: File,
    /// Held until this process ends: it is how others know that it lives.
    pub(super) lock: File,
}

struct Watch<'a> {
    run: &'a RunOf,
    main: Pid,
    pipes: [Option<OwnedFd>; 2],
    control: File,
    deaths: Option<UnixStream>,
    timer: Option<OwnedFd>,
    capture: Capture,
    switch: Option<Switch>,
    /// When the process group is killed, as time since boot.
    kill_at: Option<Duration>,
    exit: Option<Exit>,
    /// The main process's number may belong to another by now.
    is_collected: bool,
}

/// The dead man's switch of a singleton, in time since boot. By `end` the unit is dead: it is asked to end
/// early enough for its grace, or a quarter of the span if that is shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Switch {
    ask: Duration,
    end: Duration,
    signal: Signal,
    grace: Duration,
}

impl Switch {
    fn of(spec: &WorkloadSpec, now: Duration) -> Option<Self> {
        if spec.disconnect.policy != DisconnectPolicy::Singleton {
            return None;
        }
        let (signal, grace) = crate::stop_of(spec);
        let idle = Self {
            ask: now,
            end: now,
            signal,
            grace,
        };
        Some(idle.extended(now, Duration::from_millis(spec.disconnect.stop_after_ms)))
    }

    fn extended(self, now: Duration, span: Duration) -> Self {
        let end = now.saturating_add(span);
        Self {
            ask: end.saturating_sub(self.grace.min(span / 4)),
            end,
            ..self
        }
    }
}

/// Watches over the run until it is over and on record.
pub(super) fn until_the_end(run: &RunOf, living: Living) {
    let Living {
        child,
        control,
        lock,
    } = living;
    let mut watch = Watch {
        run,
        main: child.pid,
        pipes: [Some(child.stdout), Some(child.stderr)],
        control,
        deaths: deaths().ok(),
        timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC).ok(),
        capture: Capture::new(&run.dir, run.run),
        switch: Switch::of(&run.record.spec, since_boot()),
        kill_at: None,
        exit: None,
        is_collected: false,
    };
    let mut buffer = vec![0; READ_BYTES];
    // The main process may have ended before its death could be announced.
    watch.reap();
    while watch.exit.is_none() {
        watch.wait(&mut buffer);
    }
    watch.sweep();
    watch.drain(&mut buffer);
    watch.record();
    run.cgroups.remove(run.record.unit);
    drop(lock);
}

impl Watch<'_> {
    fn wait(&mut self, buffer: &mut [u8]) {
        self.arm();
        let ready = self.poll();
        for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            if ready[index] {
                self.read(index, stream, buffer);
            }
        }
        if ready[2] {
            for order in orders::receive(&self.control) {
                self.obey(order);
            }
        }
        if ready[3] {
            self.reap();
        }
        self.keep_deadlines();
    }

    /// Which of stdout, stderr, control and deaths have something to say.
    fn poll(&self) -> [bool; 4] {
        let mut which = Vec::with_capacity(5);
        let mut fds = Vec::with_capacity(5);
        let sources = [
            self.pipes[0]
                .as_ref()
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
            self.pipes[1]
                .as_ref()
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
            Some(PollFd::new(&self.control, PollFlags::IN)),
            self.deaths
                .as_ref()
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
            self.timer.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)),
        ];
        for (index, source) in sources.into_iter().enumerate() {
            if let Some(source) = source {
                which.push(index);
                fds.push(source);
            }
        }
        // Without either of the two, looking around now and then has to do.
        let is_blind = self.deaths.is_none() || self.timer.is_none();
        let glance = is_blind.then_some(Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        });
        let mut ready = [false; 4];
        match rustix::event::poll(&mut fds, glance.as_ref()) {
            Ok(_) => {
                for (fd, index) in fds.iter().zip(which) {
                    if index < ready.len() && !fd.revents().is_empty() {
                        ready[index] = true;
                    }
                }
            }
            // A signal, most likely a child's death.
            Err(_) => ready[3] = true,
        }
        ready[3] |= is_blind;
        ready
    }

    /// Reads once, so that a unit that writes without pause cannot keep its own stop from being heard.
    fn read(&mut self, index: usize, stream: Stream, buffer: &mut [u8]) -> bool {
        let Some(pipe) = &self.pipes[index] else {
            return false;
        };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => self.pipes[index] = None,
            Ok(count) => {
                self.capture
                    .take(stream, &buffer[..count], &now().to_string());
                return true;
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.pipes[index] = None,
        }
        false
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Stop { signal, grace } => self.ask(signal, grace),
            Order::Extend { span } => {
                self.switch = self
                    .switch
                    .map(|switch| switch.extended(since_boot(), span));
            }
        }
    }

    fn ask(&mut self, signal: Signal, grace: Duration) {
        let deadline = since_boot().saturating_add(grace);
        let is_first = self.kill_at.is_none();
        self.kill_at = Some(
            self.kill_at
                .map_or(deadline, |earlier| earlier.min(deadline)),
        );
        if is_first && !grace.is_zero() {
            let _ = kernel::signal_group(self.main, signal);
        }
    }

    fn keep_deadlines(&mut self) {
        let now = since_boot();
        if let Some(switch) = self.switch
            && now >= switch.ask
        {
            self.switch = None;
            self.ask(switch.signal, switch.end.saturating_sub(now));
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            // Again at each turn until it is dead: a process that forks may slip through once.
            self.kill_all();
            self.kill_at = Some(now + SWEEP_PAUSE);
        }
    }

    /// Sets the timer to the next deadline. It counts the machine's sleep, as `poll` does not.
    fn arm(&self) {
        let Some(timer) = &self.timer else { return };
        let next = [self.kill_at, self.switch.map(|switch| switch.ask)]
            .into_iter()
            .flatten()
            .min();
        // Zero disarms, so a deadline in the past becomes one in the next nanosecond.
        let next = next.map_or(Duration::ZERO, |at| at.max(Duration::from_nanos(1)));
        let at = Timespec {
            tv_sec: i64::try_from(next.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: next.subsec_nanos().into(),
        };
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spec = Itimerspec {
            it_interval: never,
            it_value: at,
        };
        let _ = timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &spec);
    }

    /// Collects the dead: orphans at once; of the main process only how it ended, because its number has to
    /// stay taken until its group has been killed.
    fn reap(&mut self) {
        if let Some(mut deaths) = self.deaths.as_ref() {
            let mut unread = [0; 64];
            while matches!(deaths.read(&mut unread), Ok(count) if count > 0) {}
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(Some(status)) = rustix::process::waitid(WaitId::Pid(self.main), options) {
            self.exit = Some(exit_of(status.exit_status(), status.terminating_signal()));
            return;
        }
        self.collect();
    }

    /// Collects all that are dead. Answers whether children are left.
    fn collect(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.main => {
                    self.is_collected = true;
                    let ended = exit_of(status.exit_status(), status.terminating_signal());
                    self.exit = Some(self.exit.unwrap_or(ended));
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Kills what the main process has left behind, until nothing is.
    fn sweep(&mut self) {
        self.kill_all();
        while self.collect() {
            let me = rustix::process::getpid().as_raw_nonzero().get();
            for (pid, stat) in kernel::processes() {
                if stat.parent == me {
                    let _ = kernel::kill(ProcessName {
                        pid,
                        ticks: stat.start_ticks,
                    });
                }
            }
            std::thread::sleep(SWEEP_PAUSE);
        }
        self.kill_commands();
    }

    /// Commands inside the unit are no children of this process, and not every kernel kills a cgroup at once.
    fn kill_commands(&self) {
        let me = kernel::name_of(rustix::process::getpid());
        for _ in 0..MOST_LOOKS {
            let mut left = self.run.cgroups.living(self.run.record.unit);
            left.retain(|name| Some(*name) != me);
            if left.is_empty() {
                return;
            }
            for name in left {
                let _ = kernel::kill(name);
            }
            std::thread::sleep(SWEEP_PAUSE);
        }
    }

    fn kill_all(&self) {
        if !self.is_collected {
            let _ = kernel::signal_group(self.main, Signal::KILL);
            // It may have left its own group.
            let _ = rustix::process::kill_process(self.main, Signal::KILL);
        }
        self.run.cgroups.kill(self.run.record.unit);
    }

    /// Takes what is still in the pipes. Only a stranger that was handed a pipe could still write.
    fn drain(&mut self, buffer: &mut [u8]) {
        for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let mut reads = 0;
            while reads < MOST_LAST_READS && self.read(index, stream, buffer) {
                reads += 1;
            }
        }
        self.capture.finish(&now().to_string());
    }

    /// Puts the end on record, however long the disk refuses. A unit that was removed meanwhile needs none.
    fn record(&self) {
        let mut exit = self.exit.unwrap_or(Exit::Unknown);
        let was_killed_by_us = self.kill_at.is_some();
        let kills = self.run.cgroups.memory_kills(self.run.record.unit);
        if exit == Exit::Signal(Signal::KILL.as_raw()) && !was_killed_by_us && kills > 0 {
            exit = Exit::OutOfMemory;
        }
        let record = ExitRecord { exit, at: now() };
        let path = self.run.dir.exit_file(self.run.run);
        while disk::write_reserved(&path, &record).is_err() && self.run.dir.runs().exists() {
            std::thread::sleep(RECORD_PAUSE);
        }
    }
}

/// The end of a pipe that has something to read whenever a child died.
fn deaths() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, write)?;
    Ok(read)
}

fn exit_of(code: Option<i32>, signal: Option<i32>) -> Exit {
    match (code, signal) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_singleton_is_asked_early_enough_to_be_dead_by_the_end_of_its_span() {
        let mut spec = WorkloadSpec::of_process("one", vec!["true".to_owned()]);
        let now = Duration::from_secs(1000);
        assert_eq!(
            Switch::of(&spec, now),
            None,
            "only singletons have a switch"
        );
        spec.disconnect.policy = DisconnectPolicy::Singleton;
        spec.disconnect.stop_after_ms = 60_000;
        let switch = Switch::of(&spec, now).unwrap();
        assert_eq!(switch.end, Duration::from_secs(1060));
        assert_eq!(
            switch.ask,
            Duration::from_secs(1050),
            "ten seconds are its grace"
        );
        let switch = switch.extended(now, Duration::from_secs(8));
        assert_eq!(
            switch.ask,
            Duration::from_secs(1006),
            "a quarter of a short span"
        );
    }
}
