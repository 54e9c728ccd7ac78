//! How the program ends. Each number is documented in `docs/guide/exit-codes.md` and never changes.

use std::process::ExitCode;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Done,
    /// Refused by the server, or failed.
    Failed,
    /// The command line or the configuration makes no sense.
    Usage,
    /// `plan`: applying would change something.
    Changes,
    /// No server answers.
    Unreachable,
    /// The wait was over before everything ran.
    Pending,
    PortTaken,
    DataUnwritable,
    DataNewer,
    DataInUse,
    /// Another server decides now.
    NotLeading,
    /// `exec`: as the command inside the copy ended.
    Command(u8),
}

impl ExitStatus {
    /// The number.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Changes => 3,
            Self::Unreachable => 4,
            Self::Pending => 5,
            Self::PortTaken => 10,
            Self::DataUnwritable => 11,
            Self::DataNewer => 12,
            Self::DataInUse => 13,
            Self::NotLeading => 14,
            Self::Command(code) => code,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_and_the_help_name_every_exit_code() {
        let guide = include_str!("../../../docs/guide/exit-codes.md");
        let help = <crate::args::Cli as clap::CommandFactory>::command()
            .render_help()
            .to_string();
        for number in [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14] {
            assert!(
                guide.contains(&format!("\n| {number} |")),
                "{number} is not in the guide"
            );
            assert!(
                help.contains(&format!("\n  {number} ")),
                "{number} is not in the help"
            );
        }
        assert_eq!(ExitStatus::NotLeading.number(), 14);
    }
}
