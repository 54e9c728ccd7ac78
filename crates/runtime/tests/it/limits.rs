//! What only root can show: users, cgroups, full disks.

use std::process::Command;

use hostler_model::spec::ProcessSpec;
use hostler_model::{Bytes, Exit, MilliCpu};
use hostler_runtime::{Data, LogQuery, Run, Runtime as _, contract};

use crate::{Home, is_running, lines, quiet, shell, started, until};

/// A small file system of its own, so that it can be full.
struct SmallDisk {
    mount: tempfile::TempDir,
}

impl SmallDisk {
    fn new() -> Self {
        let mount = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(mount.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "root can mount");
        Self { mount }
    }

    fn fill(&self) {
        let mut filler = std::fs::File::create(self.mount.path().join("filler")).unwrap();
        let block = [0; 512];
        while std::io::Write::write_all(&mut filler, &block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.mount.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.mount.path())
            .status();
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_full_disk_refuses_new_work_and_leaves_running_work_alone() {
    let disk = SmallDisk::new();
    let home = Home::at(disk.mount.path().join("process"));
    let driver = home.driver();
    let script = "echo before; while [ ! -e /proc/$$/cwd/x ]; do echo more; sleep 0.05; done";
    let unit = started(&driver, shell(script)).await;
    let waiting = contract::unit(shell("true"));
    driver.prepare(&waiting, &quiet).await.unwrap();
    lines(&driver, unit.id, 2).await;
    disk.fill();

    assert_eq!(
        driver.start(waiting.id).await.unwrap_err().code(),
        "disk-full"
    );
    let late = contract::unit(shell("true"));
    assert_eq!(
        driver.prepare(&late, &quiet).await.unwrap_err().code(),
        "disk-full"
    );
    assert!(is_running(&driver, unit.id).await, "what runs goes on");

    // tmpfs gives whole pages, so the log may have room for a while yet. On a busy machine a line takes its time.
    let mut length = 0;
    until("the log stopped growing", async || {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let before = std::mem::replace(&mut length, lines(&driver, unit.id, 0).await.len());
        before == length
    })
    .await;
    disk.free();
    until("the gap is marked", async || {
        let kept = lines(&driver, unit.id, 1).await;
        kept.iter()
            .any(|line| line.contains("could not be written"))
    })
    .await;
    disk.fill();
    assert_eq!(
        driver.stop(unit.id).await.unwrap(),
        Exit::Signal(15),
        "the end has its room"
    );
    disk.free();
    driver.start(waiting.id).await.unwrap();
    assert_eq!(contract::ended(&driver, waiting.id).await, Exit::Code(0));
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_process_runs_as_the_user_that_the_spec_names() {
    let home = Home::new();
    // The user has to come through to its working directory.
    let parent = home.dir().parent().unwrap().to_owned();
    std::fs::set_permissions(&parent, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let driver = home.driver();
    let mut spec = shell("id -u; id -g; echo $HOME; touch mine");
    spec.process = spec.process.map(|process| ProcessSpec {
        user: Some("nobody".to_owned()),
        ..process
    });
    let unit = started(&driver, spec).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(0));
    assert_eq!(
        lines(&driver, unit.id, 3).await,
        ["65534", "65534", "/nonexistent"]
    );
}

#[tokio::test]
#[ignore = "needs root"]
async fn limits_are_enforced_by_the_kernel() {
    let home = Home::new();
    let driver = home.driver();
    assert_eq!(driver.probe().await.note, "");
    let mut spec =
        shell("ulimit -n; cat /proc/self/cgroup; x=$(tail -c 200m /dev/zero | tr '\\0' x)");
    spec.limits.open_files = Some(77);
    spec.limits.pids = Some(50);
    spec.limits.cpu = Some(MilliCpu(500));
    spec.limits.memory = Some(Bytes(16 << 20));
    spec.process = spec.process.map(|process| ProcessSpec {
        command: ["/usr/bin/python3", "-c", HOG].map(str::to_owned).to_vec(),
        ..process
    });
    let unit = started(&driver, spec).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::OutOfMemory);
    let said = lines(&driver, unit.id, 2).await;
    assert_eq!(said[0], "77");
    assert!(
        said[1].contains(&format!("/hostler/{}", unit.id)),
        "{said:?}"
    );
    driver.remove(unit.id, Data::Delete).await.unwrap();
}

/// Says its limits and takes more memory than it may have.
const HOG: &str = "
import resource
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
print(open('/proc/self/cgroup').read().replace('\\n', ' '), flush=True)
hog = bytearray(200 << 20)
hog[::4096] = b'x' * len(hog[::4096])
";

#[tokio::test]
#[ignore = "needs root"]
async fn units_and_shims_live_outside_the_agents_cgroup() {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, shell("cat /proc/self/cgroup; exec sleep 1000")).await;
    let shim = home.shim_pid(unit.id, 1);
    let of_shim = std::fs::read_to_string(format!("/proc/{shim}/cgroup")).unwrap();
    assert!(of_shim.contains("/hostler/shims"), "{of_shim}");
    let latest = LogQuery {
        run: Run::Latest,
        ..LogQuery::default()
    };
    let said = contract::texts(&driver, unit.id, &latest, 1).await;
    assert!(
        said.iter()
            .any(|line| line.contains(&format!("/hostler/{}", unit.id))),
        "{said:?}"
    );
}

/// What each driver notes when it is run by the user `nobody`.
fn notes_of_nobody(engine: &str) -> String {
    let place = tempfile::tempdir().unwrap();
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(place.path(), mode(0o755)).unwrap();
    // Where the examples are built may be closed to others.
    let program = place.path().join("probe");
    std::fs::copy(crate::example("probe"), &program).unwrap();
    std::fs::set_permissions(&program, mode(0o755)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&program)
        .arg(place.path())
        .arg(engine)
        .current_dir("/")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_user_who_may_not_write_the_cgroup_is_told_that_limits_do_not_hold() {
    let notes = notes_of_nobody("/nonexistent/docker.sock");
    let note = notes
        .lines()
        .find_map(|line| line.strip_prefix("process: "));
    let note = note.unwrap();
    assert!(note.starts_with("limits are not enforced: "), "{note}");
    assert!(note.contains("denied"), "{note}");
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_user_who_may_not_open_the_engines_socket_is_told_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(place.path(), mode(0o755)).unwrap();
    let socket = place.path().join("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, mode(0o660)).unwrap();
    let notes = notes_of_nobody(socket.to_str().unwrap());
    let note = notes
        .lines()
        .find_map(|line| line.strip_prefix("container: "));
    let note = note.unwrap();
    assert!(note.contains("may not open its socket"), "{note}");
    assert!(note.contains("run the agent as root"), "{note}");
}
