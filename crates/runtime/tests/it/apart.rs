//! How far a process is kept apart, as the process itself and the kernel's files about it show it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};

use hostler_model::Exit;
use hostler_model::spec::{
    Isolation, ProcessNetwork, ProcessSpec, Seccomp, Ulimit, UlimitValue, Unlimited, WorkloadSpec,
};
use hostler_runtime::{FoundState, Runtime as _, contract};

use crate::{Home, lines, quiet, shell, started, until};

fn with(script: &str, change: impl FnOnce(&mut ProcessSpec)) -> WorkloadSpec {
    let mut spec = shell(script);
    change(spec.process.as_mut().unwrap());
    spec
}

/// What the process said, once it has ended well.
async fn said(spec: WorkloadSpec) -> Vec<String> {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, spec).await;
    let exit = contract::ended(&driver, unit.id).await;
    let said = lines(&driver, unit.id, 0).await;
    assert_eq!(exit, Exit::Code(0), "{said:?}");
    said
}

/// The code and sentence with which the start is refused; nothing of the run is left.
async fn refused(spec: WorkloadSpec) -> (String, String) {
    let home = Home::new();
    let driver = home.driver();
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    let error = driver.start(unit.id).await.unwrap_err();
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert_eq!((found.state, found.runs), (FoundState::Prepared, 0));
    (error.code().to_owned(), error.to_string())
}

/// The fields of the status that are asked for, without their names.
fn status(fields: &str) -> String {
    format!("grep -E '^({fields}):' /proc/self/status | cut -f2")
}

#[tokio::test]
async fn nothing_gains_privileges_unless_the_spec_says_that_it_may() {
    let script = status("NoNewPrivs");
    assert_eq!(said(shell(&script)).await, ["1"]);
    let may = with(&script, |it| it.no_new_privileges = false);
    assert_eq!(said(may).await, ["0"]);
}

#[tokio::test]
async fn umask_niceness_and_limits_are_those_of_the_spec() {
    let script = "umask; nice; ulimit -c; ulimit -n; ulimit -s; touch made; stat -c %a made";
    let spec = with(script, |it| {
        it.umask = Some("027".to_owned());
        it.nice = Some(7);
        it.ulimits = [
            (Ulimit::Core, UlimitValue::Most(0)),
            (Ulimit::Nofile, UlimitValue::Most(99)),
            (Ulimit::Stack, UlimitValue::Most(4 << 20)),
        ]
        .into();
    });
    assert_eq!(said(spec).await, ["0027", "7", "0", "99", "4096", "640"]);
}

#[tokio::test]
async fn what_holds_for_the_process_does_not_hold_for_its_shim() {
    let home = Home::new();
    let driver = home.driver();
    let spec = with("echo up; exec sleep 1000", |it| {
        it.nice = Some(3);
        it.ulimits = [(Ulimit::Fsize, UlimitValue::Most(0))].into();
        it.seccomp = Seccomp::Default;
    });
    let unit = started(&driver, spec).await;
    // A shim whose files could not grow would log nothing.
    assert_eq!(lines(&driver, unit.id, 1).await, ["up"]);
    let shim = home.shim_pid(unit.id, 1);
    let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    assert!(status.contains("Seccomp:\t0\n"), "{status}");
    let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let children: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(children.len(), 1, "the launcher became the program");
    let program = format!("/proc/{}/comm", children[0]);
    until("the shell became the program", async || {
        std::fs::read_to_string(&program).unwrap().trim() == "sleep"
    })
    .await;
}

#[tokio::test]
async fn environment_files_are_read_at_each_run_and_the_spec_wins() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("a"), "ONE=first\nTWO=first\nTHREE=first\n").unwrap();
    std::fs::write(path("b"), "# later\nTWO='second one'\nTHREE=second\n").unwrap();
    let home = Home::new();
    let driver = home.driver();
    let mut spec = with("echo $ONE; echo $TWO; echo $THREE", |it| {
        it.env_files = vec![path("a"), path("b")];
    });
    spec.env.insert("THREE".to_owned(), "spec".to_owned());
    let unit = started(&driver, spec).await;
    assert_eq!(
        lines(&driver, unit.id, 3).await,
        ["first", "second one", "spec"]
    );
    contract::ended(&driver, unit.id).await;

    std::fs::write(path("a"), "ONE=changed\n").unwrap();
    driver.start(unit.id).await.unwrap();
    assert_eq!(
        lines(&driver, unit.id, 3).await,
        ["changed", "second one", "spec"]
    );
    contract::ended(&driver, unit.id).await;

    std::fs::remove_file(path("b")).unwrap();
    let error = driver.start(unit.id).await.unwrap_err();
    assert_eq!(error.code(), "env-file-missing", "{error}");
    std::fs::write(path("b"), "PASSWORD: hunter2\n").unwrap();
    let error = driver.start(unit.id).await.unwrap_err();
    assert_eq!(error.code(), "env-file-invalid", "{error}");
    let sentence = error.to_string();
    assert!(
        sentence.contains("line 1") && !sentence.contains("hunter2"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_working_directory_is_made_only_if_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("deep/down").to_str().unwrap().to_owned();
    let spec = with("pwd", |it| it.working_dir = Some(dir.clone()));
    assert_eq!(refused(spec.clone()).await.0, "working-dir-missing");
    let mut asked = spec;
    asked.process.as_mut().unwrap().make_working_dir = true;
    assert_eq!(said(asked.clone()).await, [dir.as_str()]);
    assert_eq!(
        said(asked).await,
        [dir.as_str()],
        "one that is there is fine"
    );

    std::fs::write(place.path().join("file"), "").unwrap();
    let below_a_file = place.path().join("file/below").to_str().unwrap().to_owned();
    let spec = with("pwd", |it| {
        it.working_dir = Some(below_a_file);
        it.make_working_dir = true;
    });
    assert_eq!(refused(spec).await.0, "working-dir-missing");
}

#[tokio::test]
async fn calls_that_change_the_machine_are_refused_under_the_filter() {
    let script = format!(
        "{}; unshare -U true 2>&1; sh -c 'echo still here'; (echo a thread | cat)",
        status("Seccomp")
    );
    let said = said(with(&script, |it| it.seccomp = Seccomp::Default)).await;
    assert_eq!(said[0], "2", "{said:?}");
    assert!(said[1].contains("not permitted"), "{said:?}");
    assert_eq!(said[2..], ["still here", "a thread"]);
}

#[tokio::test]
async fn what_the_launcher_cannot_run_is_told_as_any_other_program() {
    let mut spec = with("", |it| it.umask = Some("077".to_owned()));
    spec.process.as_mut().unwrap().command = vec!["no-such-program".to_owned()];
    let (code, sentence) = refused(spec).await;
    assert_eq!(code, "command-not-runnable");
    assert!(sentence.contains("No such file"), "{sentence}");
}

#[tokio::test]
async fn an_unknown_group_is_told_by_its_name() {
    let spec = with("true", |it| it.groups = vec!["no-such-group".to_owned()]);
    let (code, sentence) = refused(spec).await;
    if rustix::process::geteuid().is_root() {
        assert_eq!(code, "group-unknown");
        assert!(sentence.contains("no-such-group"), "{sentence}");
    } else {
        assert_eq!(code, "user-not-permitted");
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_process_has_the_groups_of_the_spec_and_no_others() {
    let home = Home::new();
    // The user has to come through to its working directory.
    let parent = home.dir().parent().unwrap().to_owned();
    std::fs::set_permissions(&parent, PermissionsExt::from_mode(0o711)).unwrap();
    let driver = home.driver();
    let spec = with("id -u; id -g; id -G; touch mine", |it| {
        it.user = Some("nobody".to_owned());
        it.groups = vec!["adm".to_owned(), "12345".to_owned()];
    });
    let unit = started(&driver, spec).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(0));
    let said = lines(&driver, unit.id, 3).await;
    assert_eq!(said, ["65534", "65534", "65534 4 12345"]);
    let mine = home.unit_dir(unit.id).join("work/mine");
    assert_eq!(std::fs::metadata(mine).unwrap().uid(), 65534);
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_directory_that_is_made_belongs_to_the_user() {
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let dir = place.path().join("of/nobody");
    let spec = with("touch mine", |it| {
        it.user = Some("nobody".to_owned());
        it.working_dir = Some(dir.to_str().unwrap().to_owned());
        it.make_working_dir = true;
    });
    assert_eq!(said(spec).await, [""; 0]);
    assert_eq!(std::fs::metadata(&dir).unwrap().uid(), 65534);
    assert_eq!(std::fs::metadata(place.path().join("of")).unwrap().uid(), 0);
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_process_of_its_own_namespaces_sees_nothing_of_the_nodes() {
    let own = |name: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        link.to_str().unwrap().to_owned()
    };
    let script = "for ns in mnt pid ipc uts net; do readlink /proc/self/ns/$ns; done
        hostname; ls -A /tmp /var/tmp | grep -v : | tr -d '\\n' | wc -c
        echo $$; ls /proc | grep -c '^[0-9]'; cat /sys/class/net/lo/operstate 2>/dev/null; touch /tmp/x";
    let spec = with(script, |it| {
        it.isolation = Isolation {
            tmp: true,
            pid: true,
            ipc: true,
            uts: true,
            network: ProcessNetwork::Private,
        };
    });
    let said = said(spec).await;
    for (name, seen) in ["mnt", "pid", "ipc", "uts", "net"].iter().zip(&said) {
        assert!(
            seen.starts_with(name) && *seen != own(name),
            "{name}: {said:?}"
        );
    }
    assert_eq!(said[5..8], ["test-0", "0", "1"], "{said:?}");
    let seen: u32 = said[8].parse().unwrap();
    assert!(seen <= 4, "itself and its own: {said:?}");
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_private_network_has_its_loopback_and_none_has_nothing() {
    let script = "python3 -c '
import socket
listener = socket.socket(); listener.bind((\"127.0.0.1\", 0)); listener.listen()
try:
    socket.create_connection(listener.getsockname(), 5); print(\"connected\")
except OSError as error:
    print(error.strerror)
print(sorted(name for _, name in socket.if_nameindex()) == [\"lo\"] or \"more\")'";
    let on = |network| with(script, |it| it.isolation.network = network);
    let private = said(on(ProcessNetwork::Private)).await;
    assert_eq!(private[0], "connected");
    let none = said(on(ProcessNetwork::None)).await;
    assert_eq!(none[0], "Network is unreachable");
    let host = said(on(ProcessNetwork::Host)).await;
    assert_eq!(host[0], "connected");
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_unit_of_its_own_pid_namespace_is_stopped_and_leaves_nothing_behind() {
    let home = Home::new();
    let driver = home.driver();
    let spec = with(
        "trap 'echo asked; exit 5' TERM; sleep 1000 & echo up; while :; do sleep 0.05; done",
        |it| it.isolation.pid = true,
    );
    let unit = started(&driver, spec).await;
    lines(&driver, unit.id, 1).await;
    let shim = home.shim_pid(unit.id, 1);
    let main = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let main = main.trim();
    let sleeper = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
    let sleeper: i32 = sleeper.split_whitespace().next().unwrap().parse().unwrap();
    assert!(crate::is_alive(sleeper), "seen from the node");
    assert_eq!(driver.stop(unit.id).await.unwrap(), Exit::Code(5));
    assert!(!crate::is_alive(sleeper));
    // The shell may say something of its own about the signal.
    let said = lines(&driver, unit.id, 0).await;
    assert!(said.contains(&"asked".to_owned()), "{said:?}");
}

#[tokio::test]
async fn a_limit_that_the_kernel_does_not_give_is_told_by_its_name() {
    let most: u64 = {
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap();
        most.trim().parse().unwrap()
    };
    let limited = |value| {
        with("ulimit -n", |it| {
            it.ulimits = [(Ulimit::Nofile, value)].into();
        })
    };
    for value in [
        UlimitValue::Most(most + 1),
        UlimitValue::Unlimited(Unlimited::Unlimited),
    ] {
        let (code, sentence) = refused(limited(value)).await;
        assert_eq!(code, "limits-refused");
        assert!(sentence.contains("`nofile`"), "{sentence}");
    }
}
