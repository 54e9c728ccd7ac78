//! Secrets of real units: in the environment, and as files in memory; never on the disk of the node.

use std::path::{Path, PathBuf};

use hostler_kit::sealed::Clear;
use hostler_model::spec::{SecretUse, WorkloadSpec};
use hostler_model::{Exit, UnitId};
use hostler_runtime::contract;
use hostler_runtime::secrets::gather;
use hostler_runtime::{Data, Runtime};

use crate::container::{Yard, busybox};
use crate::{Home, is_running, lines, quiet, shell, until};

const CANARY: &str = "canary-51c0ffee77";

fn naming(mut spec: WorkloadSpec, secrets: &str) -> WorkloadSpec {
    spec.secrets = serde_json::from_str::<Vec<SecretUse>>(secrets).unwrap();
    spec.check().unwrap();
    spec
}

fn give(driver: &dyn Runtime, id: UnitId, spec: &WorkloadSpec, value: &str) {
    let value = |name: &str| Some(Clear::new(format!("{value}-{name}").into_bytes()));
    let given = gather(spec, value).unwrap();
    driver.secrets().unwrap().give(id, given);
}

/// Files below the directory that hold the words.
fn holding(dir: &Path, words: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(holding(&path, words));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(words.len()).any(|it| it == words.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_process_has_its_secret_in_its_environment_and_the_node_has_it_on_no_disk() {
    let home = Home::new();
    let driver = home.driver();
    // It says how long the value is, and not what it is: a log is on the disk.
    let script = "echo ${#DB}; env | grep -c canary; while :; do sleep 0.05; done";
    let spec = naming(shell(script), r#"[{"name":"db","env":"DB"}]"#);
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    give(&driver, unit.id, &unit.spec, CANARY);
    driver.start(unit.id).await.unwrap();
    let told = [format!("{}", CANARY.len() + 3), "1".to_owned()];
    until("it has said so", async || {
        lines(&driver, unit.id, 1).await == told
    })
    .await;
    assert_eq!(holding(&home.dir(), CANARY), Vec::<PathBuf>::new());
    // Another agent, with nothing in its memory, leaves it alone.
    let next = home.driver();
    assert!(is_running(&next, unit.id).await);
    next.stop(unit.id).await.unwrap();
    let error = next.start(unit.id).await.unwrap_err();
    assert_eq!(error.code(), "secret-missing");
    assert!(!error.to_string().contains(CANARY));
    give(&next, unit.id, &unit.spec, "another");
    next.start(unit.id).await.unwrap();
    let told = ["another-db".len().to_string(), "0".to_owned()];
    until("it has the new value", async || {
        lines(&next, unit.id, 2).await == told
    })
    .await;
    next.remove(unit.id, Data::Delete).await.unwrap();
}

#[tokio::test]
async fn a_process_that_is_kept_apart_gets_its_variables_through_the_launcher() {
    let home = Home::new();
    let driver = home.driver();
    let mut spec = naming(shell("umask; echo ${#DB}"), r#"[{"name":"db","env":"DB"}]"#);
    spec.process.as_mut().unwrap().umask = Some("027".to_owned());
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    give(&driver, unit.id, &unit.spec, CANARY);
    driver.start(unit.id).await.unwrap();
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(0));
    let told = ["0027".to_owned(), (CANARY.len() + 3).to_string()];
    assert_eq!(lines(&driver, unit.id, 1).await, told);
    assert_eq!(holding(&home.dir(), CANARY), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_value_that_is_no_text_is_no_variable() {
    let home = Home::new();
    let driver = home.driver();
    let spec = naming(shell("true"), r#"[{"name":"db","env":"DB"}]"#);
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    let given = gather(&unit.spec, |_| Some(Clear::new(vec![1, 0, 2]))).unwrap();
    driver.secrets().unwrap().give(unit.id, given);
    let error = driver.start(unit.id).await.unwrap_err();
    assert_eq!(error.code(), "secrets-unsupported");
}

/// Mounting takes root, as the agent of a node has it.
#[tokio::test]
#[ignore = "needs root"]
async fn a_process_sees_its_secret_as_a_file_that_nobody_else_sees() {
    let home = Home::new();
    let driver = home.driver();
    let name = format!("hostler-test-{}", std::process::id());
    let target = Path::new("/run/secrets").join(name);
    let script = format!(
        "wc -c < {0}; stat -c %a {0}; stat -f -c %T {0}; echo x >> {0} || echo shut; while :; do sleep 0.05; done",
        target.display()
    );
    let secrets = format!(
        r#"[{{"name":"db","file":"{}","mode":"0400"}}]"#,
        target.display()
    );
    let unit = contract::unit(naming(shell(&script), &secrets));
    give(&driver, unit.id, &unit.spec, CANARY);
    driver.prepare(&unit, &quiet).await.unwrap();
    give(&driver, unit.id, &unit.spec, CANARY);
    driver.start(unit.id).await.unwrap();
    let size = (CANARY.len() + 3).to_string();
    let told = [size.as_str(), "400", "tmpfs", "shut"];
    let said = async || {
        let said = lines(&driver, unit.id, 1).await;
        said.into_iter()
            .filter(|it| !it.contains("Read-only"))
            .collect::<Vec<_>>()
    };
    until("it has read the file", async || said().await == told).await;
    assert_eq!(
        std::fs::read_to_string(&target).unwrap(),
        "",
        "what it lies over"
    );
    assert_eq!(holding(&home.dir(), CANARY), Vec::<PathBuf>::new());
    let record = std::fs::read_to_string(home.unit_dir(unit.id).join("unit.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let source = PathBuf::from(record["mounts"][0]["source"].as_str().unwrap());
    assert!(source.exists(), "{}", source.display());
    driver.remove(unit.id, Data::Delete).await.unwrap();
    assert!(!source.exists());
    std::fs::remove_file(&target).unwrap();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_container_has_its_secret_as_a_file_that_the_engine_does_not_know() {
    let yard = Yard::new();
    let driver = yard.driver();
    let script =
        "wc -c < /run/secrets/db; grep -c canary /run/secrets/db; while :; do sleep 0.05; done";
    let unit = contract::unit(naming(busybox(script), r#"[{"name":"db"}]"#));
    let missing = driver.prepare(&unit, &quiet).await.unwrap_err();
    assert_eq!(missing.code(), "secret-missing");
    give(&driver, unit.id, &unit.spec, CANARY);
    driver.prepare(&unit, &quiet).await.unwrap();
    give(&driver, unit.id, &unit.spec, CANARY);
    driver.start(unit.id).await.unwrap();
    let told = [(CANARY.len() + 3).to_string(), "1".to_owned()];
    until("it has read the file", async || {
        lines(&driver, unit.id, 1).await == told
    })
    .await;
    let known = yard.inspect("{{json .}}");
    assert!(
        known.contains("/run/secrets/db") && !known.contains(CANARY),
        "{known}"
    );
    assert_eq!(holding(yard.dir(), CANARY), Vec::<PathBuf>::new());
    let source = PathBuf::from(yard.inspect("{{(index .Mounts 0).Source}}"));
    driver.stop(unit.id).await.unwrap();
    // As after a boot: memory has forgotten.
    std::fs::remove_dir_all(source.parent().unwrap()).unwrap();
    give(&driver, unit.id, &unit.spec, "another");
    driver.start(unit.id).await.unwrap();
    driver.remove(unit.id, Data::Delete).await.unwrap();
    assert!(!source.exists());
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_container_has_its_secret_as_a_variable_that_the_engine_knows() {
    let yard = Yard::new();
    let driver = yard.driver();
    let unit = contract::unit(naming(
        busybox("echo ${#DB}"),
        r#"[{"name":"db","env":"DB"}]"#,
    ));
    give(&driver, unit.id, &unit.spec, CANARY);
    driver.prepare(&unit, &quiet).await.unwrap();
    driver.start(unit.id).await.unwrap();
    contract::ended(&driver, unit.id).await;
    assert_eq!(
        lines(&driver, unit.id, 1).await,
        [(CANARY.len() + 3).to_string()]
    );
    // Which is why the guide prefers files.
    assert!(yard.inspect("{{json .Config.Env}}").contains(CANARY));
    assert!(!yard.inspect("{{json .Config.Labels}}").contains(CANARY));
    assert_eq!(holding(yard.dir(), CANARY), Vec::<PathBuf>::new());
    driver.remove(unit.id, Data::Delete).await.unwrap();
}
