//! Orders of the agent to the shim, over the unit's named pipe. Each is one short line, so that it is
//! written and read whole.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

/// What the agent can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Stop { signal: Signal, grace: Duration },
    Extend { span: Duration },
}

impl Order {
    pub fn line(&self) -> String {
        match self {
            Self::Stop { signal, grace } => {
                format!("stop {} {}\n", signal.as_raw(), grace.as_millis())
            }
            Self::Extend { span } => format!("extend {}\n", span.as_millis()),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let verb = words.next()?;
        let millis = |words: &mut std::str::SplitAsciiWhitespace<'_>| {
            words.next()?.parse().ok().map(Duration::from_millis)
        };
        match verb {
            "stop" => {
                let signal = Signal::from_named_raw(words.next()?.parse().ok()?)?;
                Some(Self::Stop {
                    signal,
                    grace: millis(&mut words)?,
                })
            }
            "extend" => Some(Self::Extend {
                span: millis(&mut words)?,
            }),
            _ => None,
        }
    }
}

/// The shim's end. Opened for writing too, so that it never reads the end of the file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nonblock)
        .open(path)
}

/// The agent's end: sends an order. Answers whether a shim is there to read it.
pub fn send(path: &Path, order: Order) -> io::Result<bool> {
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let pipe = match OpenOptions::new()
        .write(true)
        .custom_flags(nonblock)
        .open(path)
    {
        Ok(pipe) => pipe,
        Err(error) if is_unread(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    match rustix::io::write(&pipe, order.line().as_bytes()) {
        Ok(_) => Ok(true),
        // A shim that reads nothing for this long is past listening; the caller has harder means.
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PIPE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reads what is there.
pub(super) fn receive(pipe: &File) -> Vec<Order> {
    let mut buffer = [0; 1024];
    let Ok(count) = rustix::io::read(pipe, &mut buffer) else {
        return Vec::new();
    };
    String::from_utf8_lossy(&buffer[..count])
        .lines()
        .filter_map(Order::parse)
        .collect()
}

fn is_unread(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    errno == Some(rustix::io::Errno::NXIO) || errno == Some(rustix::io::Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_read_as_written_and_nonsense_is_no_order() {
        let stop = Order::Stop {
            signal: Signal::TERM,
            grace: Duration::from_secs(10),
        };
        let extend = Order::Extend {
            span: Duration::from_millis(1500),
        };
        for order in [stop, extend] {
            assert_eq!(Order::parse(order.line().trim()), Some(order));
        }
        for line in [
            "",
            "stop",
            "stop 15",
            "stop 999 1",
            "extend soon",
            "dance 1",
        ] {
            assert_eq!(Order::parse(line), None, "{line}");
        }
    }
}
