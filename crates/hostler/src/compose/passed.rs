//! Sockets that a service manager took and passes on (`LISTEN_FDS`): it keeps them over a restart, so that whoever
//! connects meanwhile waits in the kernel's queue instead of being refused.
//!
//! A passed socket serves the listener that has its port. The numbers come from the environment, and a number is no
//! proof of an open file: the kernel is asked for a copy of each, which fails where there is none.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::process::{PidfdFlags, PidfdGetfdFlags};

use crate::failure::Failure;
use crate::settings::Environment;

/// The first number that is passed, after the three usual streams.
const FIRST: i32 = 3;
/// More listeners than this no server has.
const MOST: i32 = 64;

/// The sockets that nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<(SocketAddr, TcpListener)>);

impl Passed {
    /// Those that were meant for this process.
    pub(crate) fn of_process(environment: &Environment) -> Result<Self, Failure> {
        let number = |name: &str| environment.get(name)?.parse::<i32>().ok();
        let us = rustix::process::getpid();
        if number("LISTEN_PID") != Some(us.as_raw_nonzero().get()) {
            return Ok(Self::default());
        }
        let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MOST);
        let sockets: rustix::io::Result<Vec<TcpListener>> = (FIRST..FIRST + count)
            .map(|number| {
                let process = rustix::process::pidfd_open(us, PidfdFlags::empty())?;
                let copy: OwnedFd =
                    rustix::process::pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
                Ok(TcpListener::from(copy))
            })
            .collect();
        let sockets = sockets.map_err(|errno| refused(&errno))?;
        let with_address = |socket: TcpListener| Ok((socket.local_addr()?, socket));
        let sockets: std::io::Result<_> = sockets.into_iter().map(with_address).collect();
        Ok(Self(sockets.map_err(|error| refused(&error))?))
    }

    /// The socket for an address: it has its port, and its host or every host.
    pub(crate) fn take(&mut self, addr: SocketAddr) -> Option<TcpListener> {
        let fits = |(at, _): &(SocketAddr, TcpListener)| {
            at.port() == addr.port() && (at.ip() == addr.ip() || at.ip().is_unspecified())
        };
        let found = self.0.iter().position(fits)?;
        Some(self.0.swap_remove(found).1)
    }

    /// A socket that nobody serves would leave its clients waiting for ever.
    pub(crate) fn all_taken(&self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some((addr, _)) => Err(Failure::usage(
                format!("a socket was passed for {addr}, and nothing here listens there"),
                "give the socket unit the addresses of --listen and --compat",
            )),
        }
    }
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    Failure::usage(
        format!("LISTEN_FDS names files that are no sockets to listen on: {error}"),
        "pass TCP sockets only, as a systemd socket unit with ListenStream does",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(addrs: &[&str]) -> Passed {
        let bound = addrs.iter().map(|addr| {
            let socket = TcpListener::bind(addr).unwrap();
            (socket.local_addr().unwrap(), socket)
        });
        Passed(bound.collect())
    }

    #[test]
    fn a_socket_serves_the_listener_of_its_port() {
        let mut passed = passed(&["127.0.0.1:0", "0.0.0.0:0"]);
        let (one, any) = (passed.0[0].0, passed.0[1].0);
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], one.port()));
        assert!(passed.take(elsewhere).is_none(), "another host");
        assert!(passed.take(one).is_some());
        assert!(passed.take(one).is_none(), "it is taken");
        assert!(passed.all_taken().is_err());
        let here = SocketAddr::from(([127, 0, 0, 1], any.port()));
        assert!(passed.take(here).is_some(), "every host is this one too");
        assert!(passed.all_taken().is_ok());
    }

    #[test]
    fn what_is_meant_for_another_process_is_not_taken() {
        for variables in [
            &[][..],
            &[("LISTEN_PID", "1"), ("LISTEN_FDS", "1")],
            &[("LISTEN_FDS", "1")],
        ] {
            let passed = Passed::of_process(&Environment::of(variables)).unwrap();
            assert!(passed.0.is_empty(), "{variables:?}");
        }
    }
}
