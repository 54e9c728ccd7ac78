//! A machine that is installed on: a folder with the files and the tools that matter. Its `systemctl` is a double with a
//! state: it knows only units that were loaded, runs what they say, and knows a service as active while that lives. Its
//! `start` comes back once the service has said something, or has ended.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::program::{Ended, end_units, eventually, hostler, is_alive, signal};

const SYSTEMCTL: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
root=$(cd "$(dirname "$0")/../.." && pwd)
state=$root/state
echo "$*" >> "$state/calls"
known() { grep -qx "$1.service" "$state/loaded" || { echo "Unit $1.service not found." >&2; exit 5; }; }
lives() { [ -e "$state/$1.pid" ] && kill -0 "$(cat "$state/$1.pid")" 2>/dev/null; }
key() { sed -n "s/^$2=//p" "$root/etc/systemd/system/$1.service"; }
data() { case $1 in hostler-server) echo "$1" ;; hostler-agent) echo hostler ;; *) echo "hostler/$1" ;; esac; }
start() {
    known "$1"
    lives "$1" && return
    file=$(key "$1" EnvironmentFile)
    [ -n "$file" ] && { set -a; . "$root${file#-}"; set +a; }
    here="s#\([ \"]\)/etc/#\1$root/etc/#"
    settings="$root/etc/hostler/${1#hostler-}.toml"
    [ -e "$settings" ] && sed "$here" "$settings" > "$state/$1.toml"
    export HOSTLER_CONFIG="$state/$1.toml" HOSTLER_DATA_DIR="$root/var/lib/$(data "$1")"
    export SPOT_AGENT_ROOT="$root/opt/spot-agent" HOSTLER_DOCKER_SOCKET=/nonexistent/docker.sock HOME="$root"
    [ "$1" = spot-agent ] && export HOSTLER_DATA_DIR="$root/opt/spot-agent/data"
    log=$state/$1.log
    : >> "$log"
    said=$(wc -c < "$log")
    setsid sh -c "exec $root$(key "$1" ExecStart | sed "$here")" >> "$log" 2>&1 < /dev/null &
    echo $! > "$state/$1.pid"
    for look in $(seq 300); do
        lives "$1" && [ "$(wc -c < "$log")" = "$said" ] || break
        sleep 0.1
    done
}
stop() {
    known "$1"
    lives "$1" || return 0
    kill -TERM "$(cat "$state/$1.pid")"
    while lives "$1"; do sleep 0.1; done
}
case $1 in
daemon-reload) ls "$root/etc/systemd/system" > "$state/loaded" ;;
enable) known "$2"; : > "$state/$2.enabled" ;;
disable) known "$2"; rm -f "$state/$2.enabled" ;;
start) start "$2" ;;
restart) stop "$2"; start "$2" ;;
stop) stop "$2" ;;
is-active) lives "$3" || exit 3 ;;
*) echo "unknown: $*" >&2; exit 1 ;;
esac
"#;

const USERADD: &str = r#"#!/bin/sh
for last; do :; done
echo "$last:x:990:990::/var/lib/hostler-server:/usr/sbin/nologin" >> "$(dirname "$0")/../../etc/passwd"
"#;

const CRONTAB: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
table=$(dirname "$0")/../../state/crontab
case $1 in
-l) cat "$table" ;;
-) cat > "$table.new" && mv "$table.new" "$table" ;;
esac
"#;

pub(crate) struct Machine {
    root: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
        };
        for dir in ["run/systemd/system", "usr/bin", "usr/sbin", "etc", "state"] {
            std::fs::create_dir_all(machine.at(dir)).unwrap();
        }
        machine.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        machine.write("state/loaded", "");
        machine.write("state/calls", "");
        for (path, text) in [
            ("usr/bin/systemctl", SYSTEMCTL),
            ("usr/bin/crontab", CRONTAB),
            ("usr/sbin/useradd", USERADD),
        ] {
            machine.write(path, text);
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(machine.at(path), mode).unwrap();
        }
        machine
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), text).unwrap();
    }

    /// What a file says; nothing if it is not there.
    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        std::fs::symlink_metadata(self.at(path)).is_ok()
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        let about = std::fs::metadata(self.at(path)).unwrap();
        about.permissions().mode() & 0o777
    }

    /// The program on this machine, with variables of its own to come.
    pub(crate) fn hostler(&self) -> Command {
        let mut command = hostler(self.root());
        command.env("HOSTLER_INSTALL_ROOT", self.root());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        Ended::from(self.hostler().args(words).output().unwrap())
    }

    /// What systemd was told since this was last asked, without the questions.
    pub(crate) fn told(&self) -> Vec<String> {
        let calls = self.read("state/calls");
        self.write("state/calls", "");
        let is_order = |line: &&str| !line.starts_with("is-active");
        calls.lines().filter(is_order).map(str::to_owned).collect()
    }

    pub(crate) fn pid(&self, service: &str) -> Option<u32> {
        let pid = self.read(&format!("state/{service}.pid"));
        pid.trim().parse().ok().filter(|pid| is_alive(*pid))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.at("state")).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let service = name.strip_suffix(".pid").map(str::to_owned);
            if let Some(pid) = service.and_then(|service| self.pid(&service)) {
                signal(pid, Signal::KILL);
                eventually("a service ends", || !is_alive(pid));
            }
        }
        end_units(self.root());
    }
}
