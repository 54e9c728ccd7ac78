//! What is done inside units: files in and out, ports, and commands in units that are kept apart.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use hostler_model::spec::{Isolation, ProcessNetwork, ProcessSpec, Seccomp, WorkloadSpec};
use hostler_model::{Exit, TerminalSize, UnitId};
use hostler_runtime::{Archive, Data, ExecCommand, Files, Runtime, RuntimeError, exec};

use crate::compose::{self, services};
use crate::container::Yard;
use crate::rounds::marked;
use crate::survival::killed_agent_with;
use crate::{Home, is_alive, is_running, shell, started, until};

const PATIENCE: Duration = Duration::from_secs(60);

async fn read(files: &dyn Files, id: UnitId, path: &str) -> Result<Vec<u8>, RuntimeError> {
    let archive = files.read(id, None, path).await?;
    archive
        .try_fold(Vec::new(), async |mut whole, piece| {
            whole.extend(piece);
            Ok(whole)
        })
        .await
}

/// An archive, in pieces; it breaks off behind the last if so told.
fn archive(whole: &[u8], is_broken: bool) -> Archive<io::Error> {
    let pieces = whole.chunks(500).map(|piece| Ok(piece.to_vec().into()));
    let broken = is_broken.then(|| Err(io::ErrorKind::BrokenPipe.into()));
    let pieces: Vec<_> = pieces.chain(broken).collect();
    stream::iter(pieces).boxed()
}

async fn said(driver: &dyn Runtime, id: UnitId, command: &ExecCommand) -> (Exit, String) {
    let inside = driver.exec().unwrap();
    let done = exec::run(inside, id, command, (PATIENCE, 4096))
        .await
        .unwrap();
    (done.exit, String::from_utf8(done.output).unwrap())
}

fn words(script: &str) -> ExecCommand {
    ExecCommand::new(["sh", "-c", script].map(str::to_owned).to_vec())
}

/// A tree goes in, and comes out the same.
async fn a_tree_is_copied(driver: &dyn Runtime, id: UnitId, place: &str) {
    let files = driver.files().unwrap();
    let made = words(&format!(
        "mkdir -p {place}/tree/deep {place}/into && cd {place}/tree && echo one > first && \
         echo two > deep/second && ln -s first link && cat deep/second"
    ));
    assert_eq!(
        said(driver, id, &made).await,
        (Exit::Code(0), "two\n".to_owned())
    );
    let whole = read(files, id, &format!("{place}/tree")).await.unwrap();
    let into = format!("{place}/into");
    files
        .write(id, None, &into, archive(&whole, false))
        .await
        .unwrap();
    let look = words(&format!(
        "cd {into}/tree && cat first deep/second && readlink link"
    ));
    let looked = said(driver, id, &look).await;
    assert_eq!(looked, (Exit::Code(0), "one\ntwo\nfirst\n".to_owned()));

    let missing = format!("{place}/missing");
    let refused = read(files, id, &missing).await.unwrap_err();
    assert_eq!(refused.code(), "file-not-found", "{refused}");
    for path in [&missing, &format!("{place}/tree/first")] {
        let refused = files.write(id, None, path, archive(&whole, false)).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), "file-not-found", "{path}: {refused}");
    }
    let broken = files
        .write(id, None, &into, archive(&whole[..700], true))
        .await;
    assert_eq!(broken.unwrap_err().code(), "copy-failed");
    let nonsense = files
        .write(id, None, &into, archive(&[7; 4096], false))
        .await;
    assert_eq!(nonsense.unwrap_err().code(), "copy-failed");
}

#[tokio::test]
async fn files_of_a_process_are_copied_as_its_user_sees_them() {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, shell("exec sleep 1000")).await;
    a_tree_is_copied(&driver, unit.id, ".").await;
    let files = driver.files().unwrap();
    let place = home.unit_dir(unit.id).join("work/into/tree/first");
    assert_eq!(std::fs::read(&place).unwrap(), b"one\n");
    driver.stop(unit.id).await.unwrap();
    let refused = read(files, unit.id, "into").await.unwrap_err();
    assert_eq!(refused.code(), "unit-not-running");
}

#[tokio::test]
async fn ports_of_a_process_are_those_of_its_node() {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, shell("exec sleep 1000")).await;
    let ports = driver.ports().unwrap();
    let address = ports.address(unit.id, None, 81).await.unwrap();
    assert_eq!(address.to_string(), "127.0.0.1:81");
    let refused = ports.address(unit.id, Some("db"), 81).await.unwrap_err();
    assert_eq!(refused.code(), "part-not-found");
}

#[tokio::test]
async fn a_command_has_the_environment_and_directory_that_it_asks_for() {
    let home = Home::new();
    let driver = home.driver();
    let mut spec = shell("exec sleep 1000");
    spec.env.insert("COLOUR".to_owned(), "green".to_owned());
    let unit = started(&driver, spec).await;
    let mut command = words("echo $COLOUR $SIZE; pwd");
    command.env.insert("SIZE".to_owned(), "large".to_owned());
    command.directory = Some("/usr".to_owned());
    let expected = "green large\n/usr\n".to_owned();
    assert_eq!(
        said(&driver, unit.id, &command).await,
        (Exit::Code(0), expected)
    );
    command.directory = Some("/not/there".to_owned());
    let (exit, text) = said(&driver, unit.id, &command).await;
    assert_eq!(exit, Exit::Code(126));
    assert!(text.contains("no directory `/not/there`"), "{text}");
}

#[tokio::test]
async fn a_command_ends_with_its_unit() {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, shell("exec sleep 1000")).await;
    let command = words("echo up; exec sleep 1000");
    let mut execution = driver
        .exec()
        .unwrap()
        .begin(unit.id, None, &command)
        .await
        .unwrap();
    let (_, piece) = execution.output().await.unwrap().unwrap();
    assert_eq!(piece, b"up\n");
    driver.stop(unit.id).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, execution.end()).await;
    assert_eq!(ended.unwrap().unwrap(), Exit::Signal(9));
}

/// Nobody waits for it any more, and nobody could tell it so.
async fn a_command_dies_with_its_agent(spec: WorkloadSpec, user: Option<&str>) {
    let home = Home::new();
    let mut command = words("echo up; exec sleep 1000");
    command.user = user.map(str::to_owned);
    // Who is about to become another program carries no mark for a moment.
    let unit = killed_agent_with(&home, spec, Some(&command), async |unit| {
        let both = async || marked(unit).len() == 2;
        until("the unit's process and the command run", both).await;
    });
    let unit = unit.await;
    until("the command ends", async || marked(unit).len() == 1).await;
    let driver = home.driver();
    assert!(is_running(&driver, unit).await, "the unit runs on");
}

#[tokio::test]
async fn a_command_ends_with_an_agent_that_is_killed() {
    a_command_dies_with_its_agent(shell("exec sleep 1000"), None).await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_command_of_another_user_or_in_a_pid_namespace_ends_with_an_agent_that_is_killed() {
    let plain = || shell("exec sleep 1000");
    a_command_dies_with_its_agent(plain(), Some("1234:1235")).await;
    let of_user = apart("exec sleep 1000", |it| {
        it.user = Some("1234:1235".to_owned());
    });
    a_command_dies_with_its_agent(of_user, None).await;
    let inner = apart("exec sleep 1000", |it| it.isolation.pid = true);
    a_command_dies_with_its_agent(inner, Some("1234:1235")).await;
}

#[tokio::test]
async fn a_terminal_is_the_commands_own_and_closing_it_ends_what_it_started() {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, shell("exec sleep 1000")).await;
    let mut command = words("tty; ps -o pid= -o sid= -o tpgid= -p $$; sleep 1000");
    command.terminal = Some(TerminalSize {
        rows: 24,
        columns: 80,
    });
    let mut execution = driver
        .exec()
        .unwrap()
        .begin(unit.id, None, &command)
        .await
        .unwrap();
    let mut shown = String::new();
    while shown.lines().count() < 2 {
        let (_, piece) = execution.output().await.unwrap().unwrap();
        shown += &String::from_utf8(piece).unwrap();
    }
    assert!(shown.starts_with("/dev/pts/"), "{shown}");
    let numbers = shown.lines().nth(1).unwrap().split_whitespace();
    let numbers: Vec<i32> = numbers.map(|it| it.parse().unwrap()).collect();
    assert_eq!(
        numbers, [numbers[0]; 3],
        "it leads its session, in the foreground"
    );
    drop(execution);
    until("it was killed", async || !is_alive(numbers[0])).await;
}

fn apart(script: &str, edit: impl FnOnce(&mut ProcessSpec)) -> WorkloadSpec {
    let mut spec = shell(script);
    edit(spec.process.as_mut().unwrap());
    spec
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_command_joins_the_namespaces_and_limits_of_its_unit() {
    let home = Home::new();
    let driver = home.driver();
    let all = Isolation {
        tmp: true,
        pid: true,
        ipc: true,
        uts: true,
        network: ProcessNetwork::Private,
    };
    for with_pids in [true, false] {
        let spec = apart("echo mine > /tmp/mark; echo up; exec sleep 1000", |it| {
            it.isolation = Isolation {
                pid: with_pids,
                ..all.clone()
            };
            it.seccomp = Seccomp::Default;
            it.umask = Some("027".to_owned());
        });
        let unit = started(&driver, spec).await;
        crate::lines(&driver, unit.id, 1).await;
        let script = "cat /tmp/mark; hostname; umask; tail -n +3 /proc/net/dev | wc -l; \
                      grep Seccomp: /proc/self/status | cut -f2; exit 5";
        let (exit, text) = said(&driver, unit.id, &words(script)).await;
        assert_eq!(
            (exit, text.as_str()),
            (Exit::Code(5), "mine\ntest-0\n0027\n1\n2\n")
        );
        let (_, first) = said(&driver, unit.id, &words("cat /proc/1/comm")).await;
        assert_eq!(first.trim() == "sleep", with_pids, "{first}");
        let (exit, _) = said(&driver, unit.id, &words("kill -9 $$")).await;
        assert_eq!(exit, Exit::Signal(9));
        let refused = driver.ports().unwrap().address(unit.id, None, 80).await;
        assert_eq!(refused.unwrap_err().code(), "forward-unsupported");
        a_tree_is_copied(&driver, unit.id, "/tmp").await;
        assert!(!Path::new("/tmp/into").exists(), "its /tmp is its own");

        let mut command = words("stty size; sleep 1000");
        command.terminal = Some(TerminalSize {
            rows: 7,
            columns: 70,
        });
        let mut execution = driver
            .exec()
            .unwrap()
            .begin(unit.id, None, &command)
            .await
            .unwrap();
        let (_, shown) = execution.output().await.unwrap().unwrap();
        assert_eq!(String::from_utf8(shown).unwrap().trim(), "7 70");
        drop(execution);
        let left = words("ps -e -o args= | grep -c '[s]leep 1000'; true");
        let most = if with_pids { "1" } else { "" };
        if with_pids {
            until("the command inside was killed", async || {
                said(&driver, unit.id, &left).await.1.trim() == most
            })
            .await;
        }
        driver.remove(unit.id, Data::Delete).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_command_is_its_units_user_or_the_one_it_asks_for() {
    let home = Home::new();
    let driver = home.driver();
    for is_plain in [true, false] {
        let spec = apart("exec sleep 1000", |it| {
            it.user = Some("1234:1235".to_owned());
            it.nice = (!is_plain).then_some(1);
        });
        let unit = started(&driver, spec).await;
        let mut command = words("echo $(id -u) $(id -g) $(id -G)");
        let (_, told) = said(&driver, unit.id, &command).await;
        assert_eq!(told, "1234 1235 1235\n");
        command.user = Some("0".to_owned());
        let (_, told) = said(&driver, unit.id, &command).await;
        assert_eq!(told, "0 0 0\n");
        command.user = Some("no-such-user".to_owned());
        assert_eq!(said(&driver, unit.id, &command).await.0, Exit::Code(126));
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn files_ports_and_commands_of_a_container_go_through_its_engine() {
    let yard = Yard::new();
    let driver = yard.driver();
    let spec = crate::container::busybox("mkdir /srv; exec httpd -f -p 80 -h /srv");
    let unit = started(&driver, spec).await;
    a_tree_is_copied(&driver, unit.id, "/srv").await;
    let address = driver
        .ports()
        .unwrap()
        .address(unit.id, None, 80)
        .await
        .unwrap();
    until("it can be connected to", async || {
        tokio::net::TcpStream::connect(address).await.is_ok()
    })
    .await;
    let mut command = words("echo $SIZE; pwd; id -u; sleep 4321");
    command.env.insert("SIZE".to_owned(), "large".to_owned());
    command.directory = Some("/srv".to_owned());
    command.user = Some("77".to_owned());
    let mut execution = driver
        .exec()
        .unwrap()
        .begin(unit.id, None, &command)
        .await
        .unwrap();
    let mut shown = String::new();
    while shown.lines().count() < 3 {
        let (_, piece) = execution.output().await.unwrap().unwrap();
        shown += &String::from_utf8(piece).unwrap();
    }
    assert_eq!(shown, "large\n/srv\n77\n");
    drop(execution);
    let left = words("ps | grep -c '[s]leep 4321'; true");
    until("it was killed", async || {
        said(&driver, unit.id, &left).await.1 == "0\n"
    })
    .await;
    // Its files are there when it has ended, too.
    driver.stop(unit.id).await.unwrap();
    let files = driver.files().unwrap();
    assert!(
        !read(files, unit.id, "/srv/tree/first")
            .await
            .unwrap()
            .is_empty()
    );
    driver.remove(unit.id, Data::Delete).await.unwrap();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_part_of_a_project_is_chosen_by_its_service() {
    let yard = compose::Yard::new();
    let driver = yard.driver();
    let services = services(&[
        compose::service("web", "sleep 1000", ""),
        compose::service("db", "sleep 1000", ""),
    ]);
    let unit = compose::started(&driver, services).await;
    let inside = driver.exec().unwrap();
    let command = words("cat; hostname");
    for part in [None, Some("cache")] {
        let refused = inside.begin(unit.id, part, &command).await;
        let refused = refused.err().unwrap();
        assert_eq!(refused.code(), "part-not-found");
        assert!(refused.to_string().ends_with("it has db, web"), "{refused}");
    }
    let mut names = Vec::new();
    for part in ["web", "db"] {
        let mut execution = inside.begin(unit.id, Some(part), &command).await.unwrap();
        let (_, piece) = execution.output().await.unwrap().unwrap();
        names.push(String::from_utf8(piece).unwrap());
        assert_eq!(execution.end().await.unwrap(), Exit::Code(0));
        let address = driver
            .ports()
            .unwrap()
            .address(unit.id, Some(part), 80)
            .await;
        assert_eq!(address.unwrap_err().code(), "forward-unsupported");
        let read = driver
            .files()
            .unwrap()
            .read(unit.id, Some(part), "/etc/hosts");
        assert!(read.await.unwrap().next().await.unwrap().is_ok());
    }
    assert_ne!(names[0], names[1]);
    driver.remove(unit.id, Data::Delete).await.unwrap();
}
