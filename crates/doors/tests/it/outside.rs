//! Original programs to hold the conversations with, where the environment names them. What is left out is said
//! aloud.
//!
//! | variable | program |
//! |---|---|
//! | `HOSTLER_FOREIGN_MIAAS_SEED` | MIaaS's first control plane |
//! | `HOSTLER_FOREIGN_MIAAS` | MIaaS's later control plane |
//! | `HOSTLER_FOREIGN_ORCHION` | an Orchion orchestrator, with its gateway |
//! | `HOSTLER_FOREIGN_PERSYS` | a Persys scheduler |
//! | `HOSTLER_FOREIGN_SPOT` | the spot manager's server |
//!
//! The value is the path of an executable, which is started with a free port in `PORT` (and another in `HTTP_PORT`)
//! on loopback and ended with the test, or the address of one that runs: `host:port`, for Orchion
//! `grpc-host:port,http-host:port`.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "whom to talk to is said from outside, and what is left out is said aloud"
)]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

/// Looks for a program that starts; a Python server takes a second or two.
const LOOKS: u32 = 600;
const LOOK: Duration = Duration::from_millis(50);

/// A program of somebody else.
pub(crate) struct Outsider {
    pub addr: String,
    /// Where its gateway is, if it has one.
    pub http: String,
    child: Option<Child>,
}

impl Outsider {
    /// The one that the variable names.
    pub(crate) fn of(variable: &str) -> Option<Self> {
        let Ok(told) = std::env::var(variable) else {
            eprintln!("skipped: {variable} names no program to talk to");
            return None;
        };
        if told.contains('/') {
            return Some(Self::start(&told));
        }
        let (addr, http) = told.split_once(',').unwrap_or((&told, &told));
        Some(Self {
            addr: addr.to_owned(),
            http: http.to_owned(),
            child: None,
        })
    }

    fn start(program: &str) -> Self {
        let ports = [free_port(), free_port()];
        let child = Command::new(program)
            .env("PORT", ports[0].to_string())
            .env("HTTP_PORT", ports[1].to_string())
            .spawn();
        let mut outsider = Self {
            addr: format!("127.0.0.1:{}", ports[0]),
            http: format!("127.0.0.1:{}", ports[1]),
            child: Some(child.expect("the program starts")),
        };
        for _ in 0..LOOKS {
            if TcpStream::connect(&outsider.addr).is_ok() {
                return outsider;
            }
            let ended = outsider.child.as_mut().and_then(|it| it.try_wait().ok()?);
            assert!(ended.is_none(), "{program} ended before it listened");
            std::thread::sleep(LOOK);
        }
        panic!("{program} listens at none of the ports that it was given");
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
