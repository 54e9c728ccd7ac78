//! A double of QEMU for the tests of the machine driver: it answers on its monitor, and its guest behaves as the
//! kernel's command line says. It reads the words that it needs and takes all others.
//!
//! ```text
//!   hostler.say=one,two    lines that the guest writes
//!   hostler.end=off        then it powers off; panic: its kernel gives up; wait: it obeys its power button;
//!                          ignore: it does not; refuse: QEMU itself does not start
//! ```

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--version") {
        return said("QEMU emulator version 8.2.1 (double)\n", ExitCode::SUCCESS);
    }
    let behind = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1).cloned()
    };
    let line = behind("-append").unwrap_or_default();
    let of = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key));
    let end = of("hostler.end=").unwrap_or("wait").to_owned();
    if end == "refuse" {
        std::io::stderr()
            .write_all(b"double: this machine is refused\n")
            .expect("stderr");
        return ExitCode::FAILURE;
    }
    let address = behind("-qmp").expect("a monitor is asked for");
    let socket = address
        .strip_prefix("unix:")
        .and_then(|rest| rest.split(',').next());
    let socket = socket.expect("a unix socket");
    // As QEMU does with that of an earlier run.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).expect("bind the monitor");
    let obeys = end == "wait";
    let (sender, asked) = mpsc::channel();
    let (off, pressed) = mpsc::channel();
    std::thread::spawn(move || serve(&listener, &sender, &off));
    // No guest is so quick that its end comes before QEMU is asked for the first time.
    let _ = asked.recv_timeout(Duration::from_secs(60));
    let mut text = String::new();
    for said in of("hostler.say=").unwrap_or_default().split(',') {
        if !said.is_empty() {
            text += &format!("{said}\r\n");
        }
    }
    said(&text, ExitCode::SUCCESS);
    match end.as_str() {
        "off" => ExitCode::SUCCESS,
        "panic" => ExitCode::FAILURE,
        _ => loop {
            pressed.recv().expect("the monitor goes on");
            if obeys {
                // The answer is on its way.
                std::thread::sleep(Duration::from_millis(20));
                return ExitCode::SUCCESS;
            }
        },
    }
}

fn said(text: &str, code: ExitCode) -> ExitCode {
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).expect("stdout");
    stdout.flush().expect("stdout");
    code
}

/// One client at a time, as QEMU does.
fn serve(listener: &UnixListener, asked: &mpsc::Sender<()>, off: &mpsc::Sender<()>) {
    let mut status = "running";
    for client in listener.incoming().flatten() {
        // A client may go in the middle of a word.
        let _ = talk(&client, off, &mut status);
        let _ = asked.send(());
    }
}

fn talk(
    client: &UnixStream,
    off: &mpsc::Sender<()>,
    status: &mut &'static str,
) -> std::io::Result<()> {
    let mut writer = client;
    writer.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n")?;
    for line in BufReader::new(client).lines() {
        let line = line?;
        let has = |word: &str| line.contains(&format!("\"{word}\""));
        let mut answer = String::from("{}");
        if has("stop") {
            *status = "paused";
        } else if has("cont") {
            *status = "running";
        } else if has("query-status") {
            answer = format!("{{\"status\": \"{status}\"}}");
        }
        writer.write_all(format!("{{\"return\": {answer}}}\n").as_bytes())?;
        if has("system_powerdown") && *status == "running" {
            let _ = off.send(());
        }
    }
    Ok(())
}
