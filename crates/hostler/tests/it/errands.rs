//! What is done inside copies, by the command line through a server and an agent that are separate processes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::fleet::Fleet;
use crate::needs_docker;
use crate::program::{Ended, Running, eventually, hostler, is_alive, signal};

fn exec(fleet: &Fleet, words: &[&str]) -> Ended {
    fleet.run(&[&["exec", "sleeper"], words].concat())
}

/// The command line as a child that is talked to.
fn begun(fleet: &Fleet, words: &[&str]) -> Child {
    let mut command = hostler(fleet.path());
    command.env("HOSTLER_ADDR", fleet.addr()).args(words);
    command.current_dir(fleet.path());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn ended(child: Child) -> Ended {
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_command_has_its_outputs_its_input_and_its_exit_code() {
    let fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let script = "echo out; echo err >&2; echo $A; exit 7";
    let told = exec(&fleet, &["-e", "A=b", "--", "sh", "-c", script]).with_code(7);
    assert_eq!(
        (told.stdout.as_str(), told.stderr.as_str()),
        ("out\nb\n", "err\n")
    );
    exec(&fleet, &["--", "sh", "-c", "kill -9 $$"]).with_code(137);
    let none = exec(&fleet, &["--", "cat"]).with_code(0);
    assert_eq!(none.stdout, "", "without -i there is no input");
    exec(&fleet, &["--", "no-such-program"]).with_code(127);

    let mut counting = begun(
        &fleet,
        &["exec", "-i", "sleeper", "--", "sh", "-c", "wc -c; exit 3"],
    );
    let whole = vec![b'x'; 3_000_000];
    counting.stdin.take().unwrap().write_all(&whole).unwrap();
    let counted = ended(counting).with_code(3);
    assert_eq!(counted.stdout.trim(), "3000000");

    let told = exec(&fleet, &["--slot", "1", "--", "true"]).with_code(1);
    assert!(told.stderr.contains("no copy in slot 1"), "{}", told.stderr);
    let told = exec(&fleet, &["-t", "-i", "--", "true"]).with_code(2);
    assert!(told.stderr.contains("no terminal"), "{}", told.stderr);
    let told = exec(&fleet, &["--part", "db", "--", "true"]).with_code(1);
    assert!(
        told.stderr.contains("code: part-not-found"),
        "{}",
        told.stderr
    );
    fleet.run(&["stop", "sleeper"]).with_code(0);
    exec(&fleet, &["--", "true"]).with_code(1);
}

#[test]
fn a_command_ends_with_whoever_ran_it_and_with_its_node() {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let pid_of = |child: &mut Child| -> u32 {
        let mut line = Vec::new();
        let output = child.stdout.as_mut().unwrap();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap().trim().parse().unwrap()
    };
    let script = [
        "exec",
        "-i",
        "sleeper",
        "--",
        "sh",
        "-c",
        "echo $$; exec sleep 1000",
    ];
    let mut child = begun(&fleet, &script);
    let pid = pid_of(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the command was killed", || !is_alive(pid));

    let mut child = begun(&fleet, &script);
    let pid = pid_of(&mut child);
    signal(child.id(), rustix::process::Signal::TERM);
    assert_eq!(ended(child).code, Some(143));
    eventually("the command was killed", || !is_alive(pid));

    let mut child = begun(&fleet, &script);
    pid_of(&mut child);
    fleet.kill_agent();
    let told = ended(child).with_code(1);
    assert!(
        told.stderr.contains("code: node-unreachable"),
        "{}",
        told.stderr
    );
    fleet.start_agent();
    fleet.wait_ready();
    eventually("commands run again", || {
        exec(&fleet, &["--", "true"]).code == Some(0)
    });
    assert_eq!(fleet.starts("sleeper").len(), 1, "the copy itself went on");
}

/// A terminal for the command line: our side, and a child on the other.
fn on_terminal(fleet: &Fleet, words: &[&str]) -> (std::fs::File, Child) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&ours).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    resize(&ours, 30, 90);
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    let mut command = hostler(fleet.path());
    command.env("HOSTLER_ADDR", fleet.addr()).args(words);
    command
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs);
    (ours.into(), command.spawn().unwrap())
}

fn resize(terminal: impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

/// Reads until the text is shown.
fn shows(terminal: &mut std::fs::File, text: &str) {
    let mut shown = String::new();
    while !shown.contains(text) {
        let mut piece = [0; 1024];
        let count = terminal
            .read(&mut piece)
            .unwrap_or_else(|e| panic!("{e}: {shown}"));
        shown += &String::from_utf8_lossy(&piece[..count]);
    }
}

#[test]
fn a_terminal_is_handed_over_with_its_size_and_comes_back() {
    let fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let script =
        "stty size; stty -echo; while read line; do echo \"<$line>\"; stty size; done; exit 4";
    let words = ["exec", "-it", "sleeper", "--", "sh", "-c", script];
    let (mut terminal, mut child) = on_terminal(&fleet, &words);
    let modes =
        |terminal: &std::fs::File| rustix::termios::tcgetattr(terminal).unwrap().local_modes;
    shows(&mut terminal, "30 90");
    let raw = modes(&terminal);
    terminal.write_all(b"one\r").unwrap();
    shows(&mut terminal, "<one>");
    resize(&terminal, 40, 120);
    // Without a controlling terminal the kernel sends no signal of it.
    signal(child.id(), rustix::process::Signal::WINCH);
    eventually("the other size is there", || {
        terminal.write_all(b"x\r").unwrap();
        let mut piece = [0; 1024];
        let count = terminal.read(&mut piece).unwrap();
        String::from_utf8_lossy(&piece[..count]).contains("40 120")
    });
    terminal.write_all(&[4]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let back = modes(&terminal);
    assert!(back.contains(rustix::termios::LocalModes::ECHO));
    assert!(!raw.contains(rustix::termios::LocalModes::ECHO));

    let words = [
        "exec",
        "-it",
        "sleeper",
        "--",
        "sh",
        "-c",
        "echo up; sleep 1000",
    ];
    let (mut terminal, mut child) = on_terminal(&fleet, &words);
    shows(&mut terminal, "up");
    signal(child.id(), rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(modes(&terminal).contains(rustix::termios::LocalModes::ECHO));
}

#[test]
fn a_port_of_a_copy_is_a_port_of_this_machine() {
    let fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    // Something of the node, which is where a process listens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut command = hostler(fleet.path());
    command.env("HOSTLER_ADDR", fleet.addr());
    command.args(["port-forward", "sleeper", &format!("0:{port}"), "0:1"]);
    let mut forward = Running::start(&mut command);
    let address = |line: String| line.split(' ').next().unwrap().to_owned();
    let open = address(forward.line(&format!("is port {port} of sleeper")));
    let closed = address(forward.line("is port 1 of sleeper"));
    assert!(open.starts_with("127.0.0.1:"), "{open}");

    std::thread::spawn(move || {
        for connection in listener.incoming() {
            std::thread::spawn(move || {
                let mut connection = connection.unwrap();
                let mut whole = Vec::new();
                connection.read_to_end(&mut whole).unwrap();
                connection.write_all(&whole).unwrap();
            });
        }
    });
    let connected: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(&open).unwrap()).collect();
    for (number, mut connection) in connected.into_iter().enumerate() {
        let sent = vec![u8::try_from(number).unwrap(); 700_000];
        connection.write_all(&sent).unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        let mut got = Vec::new();
        connection.read_to_end(&mut got).unwrap();
        assert!(got == sent, "{} bytes came back", got.len());
    }
    let mut refused = TcpStream::connect(&closed).unwrap();
    let mut got = Vec::new();
    // Closed, in whatever way.
    let _ = refused.read_to_end(&mut got);
    assert!(got.is_empty());
    forward.line("code: port-unreachable");
}

fn tree(at: &Path) {
    std::fs::create_dir_all(at.join("deep/empty")).unwrap();
    std::fs::write(at.join("first"), "one\n").unwrap();
    std::fs::write(at.join("deep/second"), vec![b'2'; 200_000]).unwrap();
    std::fs::set_permissions(at.join("first"), std::fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at.join("link")).unwrap();
}

fn is_tree(at: &Path) {
    assert_eq!(std::fs::read(at.join("first")).unwrap(), b"one\n");
    assert_eq!(
        std::fs::read(at.join("deep/second")).unwrap().len(),
        200_000
    );
    assert!(at.join("deep/empty").is_dir());
    let mode = std::fs::metadata(at.join("first"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o750);
    assert_eq!(
        std::fs::read_link(at.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
}

/// Files of a copy of `sleeper`, whose places are below that path.
fn files_are_copied(fleet: &Fleet, inside: &str) {
    let here = |name: &str| fleet.path().join(name);
    tree(&here("tree"));
    let cp = |from: &str, to: &str| fleet.run(&["cp", from, to]);
    let copy = |path: &str| format!("sleeper:{inside}{path}");
    // Into a directory that is there, and under another name.
    cp("tree", &copy("")).with_code(0);
    cp("tree", &copy("/other")).with_code(0);
    cp("tree/first", &copy("/other/third")).with_code(0);
    for name in ["tree", "other"] {
        cp(&copy(&format!("/{name}")), &format!("back-{name}")).with_code(0);
        is_tree(&here(&format!("back-{name}")));
    }
    cp(&copy("/other/third"), "back-tree").with_code(0);
    assert_eq!(std::fs::read(here("back-tree/third")).unwrap(), b"one\n");

    let told = cp(&copy("/other"), "back-other").with_code(0);
    assert_eq!(told.stderr, "");
    let told = cp(&copy("/other"), "back-other").with_code(1);
    assert!(told.stderr.contains("is there already"), "{}", told.stderr);
    let told = cp(&copy("/missing"), "nothing").with_code(1);
    assert!(
        told.stderr.contains("code: file-not-found"),
        "{}",
        told.stderr
    );
    let told = cp("tree", &copy("/missing/deeper/still")).with_code(1);
    assert!(
        told.stderr.contains("code: file-not-found"),
        "{}",
        told.stderr
    );
    let told = cp("missing", &copy("")).with_code(1);
    assert!(
        told.stderr.contains("cannot read missing"),
        "{}",
        told.stderr
    );
    cp("tree", "other").with_code(2);
    let left = std::fs::read_dir(fleet.path()).unwrap();
    let mut left = left.map(|it| it.unwrap().file_name().into_string().unwrap());
    assert!(!left.any(|name| name.starts_with(".hostler-cp") || name == "nothing"));
}

#[test]
fn files_are_copied_from_and_to_a_process() {
    let fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let told = exec(&fleet, &["--", "pwd"]).with_code(0).stdout;
    files_are_copied(&fleet, told.trim());
}

#[test]
#[ignore = "needs docker"]
fn commands_files_and_ports_of_a_container_are_reached_through_its_node() {
    let removed = Removed(Fleet::start_with(&needs_docker::socket()));
    let fleet = &removed.0;
    let script = "mkdir /srv; echo hello > /srv/index.html; exec httpd -f -p 80 -h /srv";
    let run = [
        "run",
        "sleeper",
        "busybox:local",
        "--pull",
        "never",
        "--",
        "sh",
        "-c",
        script,
    ];
    fleet.run(&run).with_code(0);
    let told = exec(fleet, &["--", "sh", "-c", "cat /srv/index.html; exit 6"]).with_code(6);
    assert_eq!(told.stdout, "hello\n");
    files_are_copied(fleet, "/srv");
    let words = [
        "exec",
        "-it",
        "sleeper",
        "--",
        "sh",
        "-c",
        "read x; stty size; exit 5",
    ];
    let (mut terminal, mut child) = on_terminal(fleet, &words);
    terminal.write_all(b"\r").unwrap();
    shows(&mut terminal, "30 90");
    assert_eq!(child.wait().unwrap().code(), Some(5));

    let mut command = hostler(fleet.path());
    command.env("HOSTLER_ADDR", fleet.addr());
    command.args(["port-forward", "sleeper", "0:80"]);
    let mut forward = Running::start(&mut command);
    let line = forward.line("is port 80 of sleeper");
    let mut connection = TcpStream::connect(line.split(' ').next().unwrap()).unwrap();
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    connection.read_to_string(&mut page).unwrap();
    assert!(page.ends_with("hello\n"), "{page}");
}

/// Removes the container of `sleeper`, whatever the test did.
struct Removed(Fleet);

impl Drop for Removed {
    fn drop(&mut self) {
        self.0.run(&["rm", "-y", "sleeper"]);
    }
}
