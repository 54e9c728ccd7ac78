//! What each part is on a machine: its unit of systemd, its program, its files. The units are the files of
//! `deploy/systemd`, which the program carries.

use crate::args::Part;

macro_rules! unit {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../deploy/systemd/",
            $name
        ))
    };
}

pub(super) const UNITS: &str = "/etc/systemd/system";
pub(super) const PROGRAM: &str = "/usr/local/bin/hostler";
pub(super) const SLICE: (&str, &str) = ("hostler-work.slice", unit!("hostler-work.slice"));
pub(super) const SPOT_ROOT: &str = "/opt/spot-agent";
pub(super) const SERVER_USER: &str = "hostler";
pub(super) const SERVER_DATA: &str = "/var/lib/hostler-server";
pub(super) const AGENT_DATA: &str = "/var/lib/hostler";

pub(super) const ALL: [Part; 6] = [
    Part::Server,
    Part::Agent,
    Part::SpotAgent,
    Part::MiaasAgent,
    Part::NodeAgent,
    Part::PersysAgent,
];

impl Part {
    /// As it is typed.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::SpotAgent => "spot-agent",
            Self::MiaasAgent => "miaas-agent",
            Self::NodeAgent => "node-agent",
            Self::PersysAgent => "persys-agent",
        }
    }

    /// What systemd calls it.
    pub(super) const fn service(self) -> &'static str {
        match self {
            Self::Server => "hostler-server",
            Self::Agent => "hostler-agent",
            foreign => foreign.word(),
        }
    }

    /// The unit's text, for a program that is elsewhere than usual.
    pub(super) fn unit(self, program: &str) -> String {
        let text = match self {
            Self::Server => unit!("hostler-server.service"),
            Self::Agent => unit!("hostler-agent.service"),
            Self::SpotAgent => unit!("spot-agent.service"),
            Self::MiaasAgent => unit!("miaas-agent.service"),
            Self::NodeAgent => unit!("node-agent.service"),
            Self::PersysAgent => unit!("persys-agent.service"),
        };
        text.replace(PROGRAM, program)
    }

    pub(super) fn unit_path(self) -> String {
        format!("{UNITS}/{}.service", self.service())
    }

    /// Whether it runs work, which then lives in the slice.
    pub(super) const fn has_work(self) -> bool {
        !matches!(self, Self::Server)
    }

    /// Another name for the program.
    pub(super) const fn link(self) -> Option<&'static str> {
        match self {
            Self::MiaasAgent => Some("/usr/local/bin/miaas-agent"),
            Self::NodeAgent => Some("/usr/local/bin/node-agent"),
            Self::PersysAgent => Some("/usr/local/bin/persys-agent"),
            Self::Server | Self::Agent | Self::SpotAgent => None,
        }
    }

    /// Where its settings are; the first is the one that `install` writes.
    pub(super) const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Server => &["/etc/hostler/server.toml"],
            Self::Agent => &["/etc/hostler/agent.toml", "/etc/hostler/agent.token"],
            Self::SpotAgent => &["/opt/spot-agent/config"],
            Self::MiaasAgent => &["/etc/hostler/miaas-agent.env"],
            Self::NodeAgent => &["/etc/hostler/node-agent.yaml"],
            Self::PersysAgent => &["/etc/hostler/persys-agent.env"],
        }
    }

    /// Where its data is, unless its settings say otherwise.
    pub(super) const fn data(self) -> &'static str {
        match self {
            Self::Server => SERVER_DATA,
            Self::Agent => AGENT_DATA,
            Self::SpotAgent => "/opt/spot-agent/data",
            Self::MiaasAgent => "/var/lib/hostler/miaas-agent",
            Self::NodeAgent => "/var/lib/hostler/node-agent",
            Self::PersysAgent => "/var/lib/persys",
        }
    }
}
