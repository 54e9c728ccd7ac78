//! Ports: whether those that a server here would listen on are taken, and by whom, where /proc tells.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::finding::{Finding, Gravity, here};

/// The kernel's word for a socket that listens.
const LISTENS: &str = "0A";

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    Program {
        name: String,
        pid: u32,
    },
    /// Its files may not be seen.
    Unknown,
}

pub(super) fn examine(listen: SocketAddr) -> Option<Finding> {
    let proc = Path::new("/proc");
    let inode = inode_of(&tables(proc), listen.port())?;
    judge(listen.port(), &holder(proc, &inode))
}

/// Our own server there is what is expected.
fn judge(port: u16, holder: &Holder) -> Option<Finding> {
    let who = match holder {
        Holder::Program { name, .. } if name == "hostler" => return None,
        Holder::Program { name, pid } => format!("{name} (pid {pid})"),
        Holder::Unknown => "a program of another user".to_owned(),
    };
    let sentence = format!("port {port}, where a server here would listen, is taken by {who}");
    let advice =
        "if a server is to run here, stop that program or choose another port with --listen";
    Some(here(Gravity::Warning, sentence, advice))
}

fn tables(proc: &Path) -> String {
    let read = |name: &str| fs::read_to_string(proc.join("net").join(name)).unwrap_or_default();
    read("tcp") + &read("tcp6")
}

/// `sl local_address rem_address st … inode`, addresses as `HEX:PORT`.
fn inode_of(tables: &str, port: u16) -> Option<String> {
    tables.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
        let at = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (at == port && *state == LISTENS).then(|| (*inode).to_owned())
    })
}

fn holder(proc: &Path, inode: &str) -> Holder {
    let socket = format!("socket:[{inode}]");
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let process = proc.join(pid.to_string());
        let files = fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
        if links.any(|link| link.as_os_str() == socket.as_str()) {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let name = name.trim().to_owned();
            return Holder::Program { name, pid };
        }
    }
    Holder::Unknown
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_taken_port_is_told_with_the_program_that_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = examine(listener.local_addr().unwrap()).unwrap();
        let pid = format!("(pid {})", std::process::id());
        assert!(found.sentence.contains(&pid), "{}", found.sentence);
        let port = listener.local_addr().unwrap().port();
        let inode = || inode_of(&tables(Path::new("/proc")), port);
        let listening = inode();
        drop(listener);
        // By now somebody else may have the port.
        assert_ne!(inode(), listening);
    }

    #[test]
    fn our_own_server_and_who_only_talks_are_no_finding() {
        let ours = Holder::Program {
            name: "hostler".to_owned(),
            pid: 7,
        };
        assert_eq!(judge(8080, &ours), None);
        assert!(
            judge(8080, &Holder::Unknown)
                .unwrap()
                .sentence
                .contains("another user")
        );
        let line = "0: 0100007F:1F90 0100007F:A000 01 0:0 0:0 0 0 0 77 1\n";
        assert_eq!(inode_of(line, 8080), None, "a connection");
        let line = line.replace(" 01 ", " 0A ");
        assert_eq!(inode_of(&line, 8080), Some("77".to_owned()));
    }
}
