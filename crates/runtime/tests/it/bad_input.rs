//! Bad input, driver by driver, on the real component: each has its code and its reason, and nothing of it is left once
//! it is removed. What registries, repositories and images of machines add has its tests beside them.

use std::path::{Path, PathBuf};

use hostler_model::FailureReason;
use hostler_model::spec::{Kind, Mount, PortMapping, Protocol, PullPolicy, WorkloadSpec};
use hostler_runtime::{Data, FoundState, Runtime, RuntimeError, contract};

use crate::compose::{self, IDLE, project, service};
use crate::container::{Yard, busybox};
use crate::rounds::marked;
use crate::{Home, quiet, shell};

/// What is wrong with the spec, what the driver makes of it, and what it has to say.
type Case<'a> = (WorkloadSpec, &'a str, FailureReason, &'a str);

/// The unit cannot be prepared or started, is no run, and is removed.
pub(crate) async fn fails(runtime: &dyn Runtime, (spec, code, reason, words): Case<'_>) {
    let unit = contract::unit(spec);
    let error = match runtime.prepare(&unit, &quiet).await {
        Err(error) => {
            assert_eq!(contract::find(runtime, unit.id).await, None, "{error}");
            error
        }
        Ok(()) => {
            let error = runtime.start(unit.id).await.unwrap_err();
            let found = contract::find(runtime, unit.id).await.unwrap();
            let runs = matches!(found.state, FoundState::Running { .. });
            assert!(!runs && found.runs <= 1, "{error}: {found:?}");
            // Some services of a project may have begun before another did not.
            let is_project = runtime.kind() == Kind::Compose;
            assert!(is_project || found.runs == 0, "{error}: {found:?}");
            error
        }
    };
    let failure = error.failure();
    assert_eq!((error.code(), failure.reason()), (code, reason), "{error}");
    assert!(error.to_string().contains(words), "{code}: {error}");
    runtime.remove(unit.id, Data::Delete).await.unwrap();
    assert_eq!(contract::find(runtime, unit.id).await, None, "{error}");
    assert_eq!(marked(unit.id), Vec::<i32>::new(), "{error}");
    let name = unit.id.to_string();
    let cgroups = named(Path::new("/sys/fs/cgroup"), &name);
    assert_eq!(cgroups, Vec::<PathBuf>::new(), "{error}");
}

/// Directories below whose name has this in it.
fn named(dir: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = dirs.flat_map(|entry| {
        let path = entry.path();
        let below = named(&path, name);
        let is_it = entry.file_name().to_string_lossy().contains(name);
        below.into_iter().chain(is_it.then_some(path))
    });
    found.collect()
}

pub(crate) fn port(host: u16) -> PortMapping {
    PortMapping {
        name: None,
        host,
        target: Some(80),
        protocol: Protocol::Tcp,
    }
}

#[tokio::test]
async fn what_a_process_cannot_be_is_told_by_its_kind_and_leaves_nothing() {
    use FailureReason::InvalidSpec;
    let home = Home::new();
    let place = tempfile::tempdir().unwrap();
    let invalid = place.path().join("invalid.env").display().to_string();
    std::fs::write(&invalid, "no variable\n").unwrap();
    let with = |change: &dyn Fn(&mut hostler_model::spec::ProcessSpec)| {
        let mut spec = shell("true");
        change(spec.process.as_mut().unwrap());
        spec
    };
    let program = |program: &str| with(&|it| it.command = vec![program.to_owned()]);
    let user = |user: &str| with(&|it| it.user = Some(user.to_owned()));
    let env_file = |path: &str| with(&|it| it.env_files = vec![path.to_owned()]);
    let nowhere = with(&|it| it.working_dir = Some("/no/such/place".to_owned()));
    let driver = home.driver();
    for case in [
        (
            program("no-such-program"),
            "command-not-runnable",
            "No such file",
        ),
        (program("/etc/passwd"), "command-not-runnable", "denied"),
        (
            user("nobody-of-that-name"),
            "user-unknown",
            "nobody-of-that-name",
        ),
        (nowhere, "working-dir-missing", "/no/such/place"),
        (
            env_file("/no/such/file"),
            "env-file-missing",
            "/no/such/file",
        ),
        (env_file(&invalid), "env-file-invalid", "line 1"),
    ] {
        let (spec, code, words) = case;
        fails(&driver, (spec, code, InvalidSpec, words)).await;
    }
    assert_eq!(std::fs::read_dir(home.dir()).unwrap().count(), 0);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_a_container_cannot_be_is_told_by_its_kind_and_leaves_nothing() {
    use FailureReason::{ImagePullFailed, InvalidSpec, NetworkError, StorageError};
    let yard = Yard::new();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let with = |change: &dyn Fn(&mut WorkloadSpec)| {
        let mut spec = busybox("true");
        change(&mut spec);
        spec
    };
    let image = |name: &str, pull| {
        with(&|it| {
            let container = it.container.as_mut().unwrap();
            (container.image, container.pull) = (name.to_owned(), pull);
        })
    };
    let program = with(&|it| {
        it.container.as_mut().unwrap().command = vec!["no-such-program".to_owned()];
    });
    let mount = |source: &str| {
        with(&|it| {
            it.container.as_mut().unwrap().mounts = vec![Mount {
                source: source.to_owned(),
                target: "/there".to_owned(),
                read_only: false,
            }];
        })
    };
    let host = taken.local_addr().unwrap().port();
    let published = with(&|it| it.ports = vec![port(host)]);
    let driver = yard.driver();
    for case in [
        (
            image("no-such-image:local", PullPolicy::Never),
            "image-unavailable",
            ImagePullFailed,
            "no-such-image",
        ),
        (
            image("127.0.0.1:1/no-such-image:local", PullPolicy::Missing),
            "image-unavailable",
            ImagePullFailed,
            "refused",
        ),
        (
            program,
            "command-not-runnable",
            InvalidSpec,
            "no-such-program",
        ),
        (
            mount("/no/such/place"),
            "mount-not-found",
            StorageError,
            "/no/such/place",
        ),
        (
            mount("/etc/passwd/below"),
            "mount-not-found",
            StorageError,
            "/etc/passwd/below",
        ),
        (published, "port-in-use", NetworkError, "in use"),
    ] {
        fails(&driver, case).await;
    }
    let left = yard.docker(&["ps", "-aq", "--filter", &yard.filter()]);
    assert_eq!(left, "", "no container");
    let images = yard.docker(&["images", "-q", "--filter", "reference=*/no-such-image"]);
    assert_eq!(images, "", "no image");
    assert_eq!(std::fs::read_dir(yard.dir()).unwrap().count(), 0);
}

#[tokio::test]
#[ignore = "needs compose"]
async fn what_a_project_cannot_be_is_told_by_its_kind_and_leaves_nothing() {
    use FailureReason::{ImagePullFailed, InvalidSpec, NetworkError, StorageError};
    let yard = compose::Yard::new();
    let driver = yard.driver();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let host = taken.local_addr().unwrap().port();
    let db = service("db", IDLE, "");
    let busy = format!(
        "services:\n{db}  web: {{image: 'busybox:local', command: sleep 1000, ports: ['{host}:80']}}\n"
    );
    let program = format!(
        "services:\n{db}  web: {{image: 'busybox:local', command: no-such-program, network_mode: none}}\n"
    );
    let mount = format!(
        "version: '3.2'\nservices:\n{}",
        service(
            "web",
            IDLE,
            ", volumes: [{type: bind, source: /no/such/place, target: /there}]"
        )
    );
    let images = "services: {web: {image: '127.0.0.1:1/no/such:1'}}";
    let never = "services: {web: {image: 'no-such:local', pull_policy: never}}";
    for (text, code, reason, words) in [
        (
            "services:\n  web:\n    image: \"x",
            "compose-invalid",
            InvalidSpec,
            "line 3",
        ),
        (
            "services: {web: {imag: x}}",
            "compose-invalid",
            InvalidSpec,
            "imag",
        ),
        (
            "web: {image: x}",
            "compose-invalid",
            InvalidSpec,
            "services",
        ),
        (
            "services: {web: {image: '${TAG:?which}'}}",
            "compose-variable-missing",
            InvalidSpec,
            "TAG",
        ),
        (
            images,
            "image-unavailable",
            ImagePullFailed,
            "127.0.0.1:1/no/such:1",
        ),
        (never, "image-unavailable", ImagePullFailed, "never pulled"),
        (&busy, "port-in-use", NetworkError, "service web"),
        (
            &program,
            "command-not-runnable",
            InvalidSpec,
            "no-such-program",
        ),
        (&mount, "mount-not-found", StorageError, "/no/such/place"),
    ] {
        fails(&driver, (project(text), code, reason, words)).await;
        assert_eq!(yard.left(), Vec::<PathBuf>::new(), "{text}");
        assert_eq!(yard.containers(None), Vec::<String>::new(), "{text}");
        assert_eq!(yard.networks(), "", "{text}");
    }
}

#[tokio::test]
async fn what_the_node_itself_lacks_is_an_error_of_the_runtime() {
    let home = Home::new();
    let broken = crate::driver_with_shim(home.dir(), "/bin/true".into());
    let case = (
        shell("true"),
        "node-io",
        FailureReason::RuntimeError,
        "shim",
    );
    fails(&broken, case).await;
    let nowhere = home.dir().join("no.sock").display().to_string();
    let down = crate::container::driver(nowhere, home.dir(), "test");
    let error: RuntimeError = down.observe().await.unwrap_err();
    assert_eq!(error.failure().reason(), FailureReason::RuntimeError);
}
