//! What is done inside copies: `exec`, `port-forward`, `cp`.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::{ClientArgs, pair};

#[derive(Debug, Subcommand)]
pub(crate) enum ErrandCommand {
    /// Run a command inside a copy of a workload
    Exec(ExecArgs),
    /// Make ports of a copy ports of this machine
    PortForward(PortForwardArgs),
    /// Copy files from and to a copy of a workload
    Cp(CpArgs),
}

impl ErrandCommand {
    /// Where the server is.
    pub(crate) const fn client(&self) -> &ClientArgs {
        match self {
            Self::Exec(args) => &args.client,
            Self::PortForward(args) => &args.client,
            Self::Cp(args) => &args.client,
        }
    }
}

const EXEC_EXAMPLES: &str = "\
Examples:
  hostler exec web -- ls -l
  hostler exec -it web -- sh
  hostler exec -i --part db shop -- psql < dump.sql";

#[derive(Debug, Args)]
#[command(after_help = EXEC_EXAMPLES)]
pub(crate) struct ExecArgs {
    /// Name, id, or the beginning of an id
    pub(crate) workload: String,
    /// The command with its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Hand stdin over to it
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal, which is this one
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// As whom to run it, as specs name users
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// A variable of its environment; repeatable
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// The directory in which it begins
    #[arg(short, long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    #[command(flatten)]
    pub(crate) copy: CopyArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Which copy of a workload, and which part of it.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CopyArgs {
    /// This copy [default: the first that runs]
    #[arg(long)]
    pub(crate) slot: Option<u32>,
    /// This part of it, such as a service of a compose project
    #[arg(long, value_name = "NAME")]
    pub(crate) part: Option<String>,
}

const FORWARD_EXAMPLES: &str = "\
Examples:
  hostler port-forward web 8080:80        http://127.0.0.1:8080 is port 80 of the copy
  hostler port-forward shop --part db 5432";

#[derive(Debug, Args)]
#[command(after_help = FORWARD_EXAMPLES)]
pub(crate) struct PortForwardArgs {
    /// Name, id, or the beginning of an id
    pub(crate) workload: String,
    /// A port of the copy, behind the port of this machine if that is another (0: any that is free)
    #[arg(required = true, value_name = "[LOCAL:]REMOTE", value_parser = ports)]
    pub(crate) ports: Vec<(u16, u16)>,
    /// The address of this machine that others connect to
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    #[command(flatten)]
    pub(crate) copy: CopyArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

const CP_EXAMPLES: &str = "\
Examples:
  hostler cp site/ web:/srv              the directory becomes /srv/site
  hostler cp web/1:/var/log/app.log .    from copy 1, into this directory
  hostler cp ./my:file web:              a local path with a colon begins with `.` or `/`";

#[derive(Debug, Args)]
#[command(after_help = CP_EXAMPLES)]
pub(crate) struct CpArgs {
    /// A path of this machine, or WORKLOAD[/SLOT]:PATH
    pub(crate) source: String,
    /// The same; one of the two is of this machine. A directory that is there takes the source in
    pub(crate) destination: String,
    /// The part of the copy, such as a service of a compose project
    #[arg(long, value_name = "NAME")]
    pub(crate) part: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Reads `local:remote`, or `port` for both.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let refused = || format!("`{text}` is no port; write `80` or `8080:80`");
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().map_err(|_| refused());
    match (number(local)?, number(remote)?) {
        (_, 0) => Err(refused()),
        both => Ok(both),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_number_or_two() {
        assert_eq!(ports("80"), Ok((80, 80)));
        assert_eq!(ports("8080:80"), Ok((8080, 80)));
        assert_eq!(ports("0:80"), Ok((0, 80)));
        for text in ["", "0", "80:0", ":80", "80:", "99999", "a:b", "1:2:3"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }
}
