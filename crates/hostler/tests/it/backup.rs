//! Backups of a running server, and what is made of them: everything that was acknowledged is in them, and what is
//! damaged changes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fleet::Fleet;
use crate::program::{Ended, Raises, Running, eventually, hostler, is_alive};

/// Writes that must have been acknowledged before a backup begins.
const WRITES: usize = 20;

#[test]
fn a_backup_under_load_has_every_write_that_was_acknowledged_before_it_began() {
    let fleet = Fleet::without_agent("/nonexistent/docker.sock");
    let archive = fleet.path().join("fleet.tar");
    let (acknowledged, is_over) = (Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    let before = std::thread::scope(|scope| {
        let over = Raises(&is_over);
        scope.spawn(|| write_until(&fleet, &is_over, &acknowledged));
        eventually("enough is written", || {
            acknowledged.lock().unwrap().len() >= WRITES
        });
        let before = acknowledged.lock().unwrap().clone();
        let taken = fleet.run(&["backup", path(&archive)]);
        let after = acknowledged.lock().unwrap().len();
        eventually("the writer went on behind it", || {
            acknowledged.lock().unwrap().len() > after
        });
        drop(over);
        taken.with_code(0);
        before
    });
    let mode = std::fs::metadata(&archive).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(names(&archive), ["manifest.json", "hostler.db"]);
    assert_eq!(
        leftovers(&fleet.server_dir(), "backup"),
        Vec::<String>::new()
    );

    let place = fleet.path().join("restored");
    let told = restore(&fleet, &archive, &place, &[]).with_code(0);
    assert!(
        told.stdout.starts_with("restored fleet "),
        "{}",
        told.stdout
    );
    assert!(told.stderr.contains("new epoch"), "{}", told.stderr);
    let (_server, addr) = serve(&fleet, &place);
    for (name, revision) in before {
        let shown = fleet.run(&["show", &name, "-o", "json", "--addr", &addr]);
        let shown = shown.with_code(0).json();
        assert_eq!(shown["revision"], revision, "{name}");
    }
}

#[test]
fn a_restored_fleet_is_followed_when_somebody_has_said_that_all_is_well() {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let archive = fleet.path().join("fleet.tar");
    fleet.run(&["backup", path(&archive)]).with_code(0);
    fleet.run_sleeper("later", &[]).with_code(0);
    let pids = [fleet.starts("sleeper")[0], fleet.starts("later")[0]];
    let in_use = restore(&fleet, &archive, &fleet.server_dir(), &["--force"]);
    assert_eq!(in_use.code, Some(13), "{}", in_use.stderr);
    fleet.kill_server();
    let occupied = restore(&fleet, &archive, &fleet.server_dir(), &[]).with_code(1);
    assert!(occupied.stderr.contains("--force"), "{}", occupied.stderr);
    restore(&fleet, &archive, &fleet.server_dir(), &["--force"]).with_code(0);
    let aside = leftovers(&fleet.server_dir(), "before-restore-");
    assert_eq!(aside.len(), 1, "{aside:?}");

    fleet.start_server();
    let is_held = |fleet: &Fleet| {
        let node = fleet.node().unwrap_or_default();
        node["held_back"].is_string()
    };
    eventually("the node holds its orders back", || is_held(&fleet));
    assert!(pids.iter().all(|pid| is_alive(*pid)), "nothing is stopped");
    fleet.run(&["node", "accept", "box"]).with_code(0);
    eventually("what the backup does not know is stopped", || {
        !is_alive(pids[1])
    });
    assert!(is_alive(pids[0]));

    // What was set aside is a whole store.
    let old = fleet.server_dir().join(&aside[0]);
    let (_server, addr) = serve(&fleet, &old);
    let shown = fleet
        .run(&["ps", "-o", "name", "--addr", &addr])
        .with_code(0);
    assert!(shown.stdout.contains("later"), "{}", shown.stdout);
}

#[test]
fn a_damaged_archive_changes_nothing() {
    let mut fleet = Fleet::without_agent("/nonexistent/docker.sock");
    fleet
        .run(&["run", "kept", "--count", "0", "-d", "--", "true"])
        .with_code(0);
    let archive = fleet.path().join("fleet.tar");
    fleet.run(&["backup", path(&archive)]).with_code(0);
    assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
    let whole = std::fs::read(&archive).unwrap();
    let before = contents(&fleet.server_dir());
    let damaged = fleet.path().join("damaged.tar");
    let mut trials: Vec<(String, Vec<u8>)> = [0, 1, 300, 512, 1_024, 1_600, whole.len() / 2]
        .into_iter()
        .chain([whole.len() - 2_048])
        .map(|length| (format!("cut at {length}"), whole[..length].to_vec()))
        .collect();
    for at in [10, 600, 2_000, whole.len() / 2] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        trials.push((format!("a bit of {at}"), flipped));
    }
    trials.push((
        "another file".to_owned(),
        b"not a backup at all".repeat(200),
    ));
    for (what, bytes) in trials {
        std::fs::write(&damaged, bytes).unwrap();
        let told = restore(&fleet, &damaged, &fleet.server_dir(), &["--force"]);
        assert_eq!(
            told.code,
            Some(1),
            "{what}: {} {}",
            told.stdout,
            told.stderr
        );
        assert_eq!(contents(&fleet.server_dir()), before, "{what}");
    }
    let missing = fleet.path().join("nowhere.tar");
    restore(&fleet, &missing, &fleet.server_dir(), &["--force"]).with_code(1);
    assert_eq!(contents(&fleet.server_dir()), before);
    fleet.start_server();
    fleet.run(&["show", "kept"]).with_code(0);
}

#[test]
fn keys_are_in_a_backup_only_if_they_are_asked_for() {
    let fleet = Fleet::without_agent("/nonexistent/docker.sock");
    let trust = fleet.server_dir().join("trust");
    std::fs::create_dir(&trust).unwrap();
    std::fs::write(trust.join("authority.key"), "planted authority").unwrap();
    std::fs::write(fleet.server_dir().join("secrets.key"), "planted secret").unwrap();
    let (bare, full) = (fleet.path().join("bare.tar"), fleet.path().join("full.tar"));
    let told = fleet.run(&["backup", path(&bare)]).with_code(0);
    assert!(
        told.stderr
            .contains("left out: secrets.key, trust/authority.key"),
        "{}",
        told.stderr
    );
    let bytes = std::fs::read(&bare).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"planted"));
    fleet.run(&["backup", path(&bare)]).with_code(2);

    fleet
        .run(&["backup", "--with-keys", path(&full)])
        .with_code(0);
    let expected = [
        "manifest.json",
        "hostler.db",
        "secrets.key",
        "trust/authority.key",
    ];
    assert_eq!(names(&full), expected);
    let place = fleet.path().join("restored");
    let told = restore(&fleet, &bare, &place, &[]).with_code(0);
    assert!(
        told.stderr.contains("put secrets.key, trust/authority.key"),
        "{}",
        told.stderr
    );
    assert!(!place.join("trust").exists());
    restore(&fleet, &full, &place, &["--force"]).with_code(0);
    let key = place.join("trust/authority.key");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "planted authority");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&place.join("trust"))), (0o600, 0o700));
    // To stdout it is the same archive.
    let mut command = hostler(fleet.path());
    command
        .env("HOSTLER_ADDR", fleet.addr())
        .args(["backup", "-"]);
    let streamed = command.output().unwrap();
    assert!(streamed.status.success());
    std::fs::write(fleet.path().join("streamed.tar"), streamed.stdout).unwrap();
    let streamed = fleet.path().join("streamed.tar");
    restore(&fleet, &streamed, &fleet.path().join("third"), &[]).with_code(0);
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn restore(fleet: &Fleet, archive: &Path, place: &Path, flags: &[&str]) -> Ended {
    let words = ["restore", path(archive), "--data-dir", path(place)];
    fleet.run(&[&words[..], flags].concat())
}

/// A server on that directory, and its address.
fn serve(fleet: &Fleet, place: &Path) -> (Running, String) {
    let mut command = hostler(fleet.path());
    command
        .args([
            "server",
            "--insecure",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(place);
    let mut server = Running::start(&mut command);
    let line = server.line("listening on http://");
    let addr = line.rsplit("http://").next().unwrap();
    let addr = format!("http://{addr}");
    (server, addr)
}

/// Writes all the while, and notes what was acknowledged.
fn write_until(fleet: &Fleet, is_over: &AtomicBool, noted: &Mutex<BTreeMap<String, u64>>) {
    for count in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("note-{count}");
        let ended = fleet.run(&[
            "run", &name, "--count", "0", "-d", "-o", "json", "--", "true",
        ]);
        let revision = ended.with_code(0).json()[0]["revision"].as_u64().unwrap();
        noted.lock().unwrap().insert(name, revision);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The names in an archive, in their order.
fn names(archive: &Path) -> Vec<String> {
    let listed = std::process::Command::new("tar")
        .arg("-tf")
        .arg(archive)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().map(str::to_owned).collect()
}

/// The names in a directory that begin so.
fn leftovers(directory: &Path, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Every file of a directory with its bytes, but for the lock, which names its last holder.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| !path.ends_with("store.lock"));
    files
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap_or_default();
            (path, bytes)
        })
        .collect()
}
