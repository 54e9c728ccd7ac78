//! Every key of a container's section, as a real engine understood it.

use hostler_model::Exit;
use hostler_model::spec::{ContainerSpec, WorkloadSpec, parse_one};
use hostler_runtime::{
    Data, ExecCommand, LogQuery, NativeVerdict, Runtime as _, RuntimeError, Unit,
};
use hostler_runtime::{contract, exec};

use crate::container::Yard;
use crate::{PATIENCE, quiet, started, until};

/// A container with these keys that says what the script says and stays.
fn with(keys: &str, script: &str) -> WorkloadSpec {
    let text =
        format!("name: test\ncontainer: {{image: \"busybox:local\", pull: never, {keys}}}\n");
    let mut spec = parse_one(&text).unwrap();
    let container: &mut ContainerSpec = spec.container.as_mut().unwrap();
    container.command = ["sh", "-c", &format!("{script}; sleep 1000")]
        .map(str::to_owned)
        .to_vec();
    spec
}

#[tokio::test]
#[ignore = "needs docker"]
async fn each_key_is_found_again_in_the_engines_own_words() {
    for (keys, format, expected) in [
        (
            "tmpfs: [{target: /t, size: 1MiB, mode: \"1777\"}]",
            "{{json .HostConfig.Mounts}}",
            r#"[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":1023}}]"#,
        ),
        ("network: none", "{{.HostConfig.NetworkMode}}", "none"),
        ("hostname: box", "{{.Config.Hostname}}", "box"),
        (
            "dns: [127.0.0.9]",
            "{{json .HostConfig.Dns}}",
            r#"["127.0.0.9"]"#,
        ),
        (
            "extra_hosts: {db: 127.0.0.8}",
            "{{json .HostConfig.ExtraHosts}}",
            r#"["db:127.0.0.8"]"#,
        ),
        ("privileged: true", "{{.HostConfig.Privileged}}", "true"),
        (
            "capabilities: {add: [cap_net_admin], drop: [CHOWN]}",
            "{{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}}",
            "[NET_ADMIN] [CHOWN]",
        ),
        (
            "devices: [{source: /dev/zero, target: /dev/nought, permissions: r}]",
            "{{range .HostConfig.Devices}}{{.PathOnHost}} {{.PathInContainer}} {{.CgroupPermissions}}{{end}}",
            "/dev/zero /dev/nought r",
        ),
        ("read_only: true", "{{.HostConfig.ReadonlyRootfs}}", "true"),
        ("user: \"7:8\"", "{{.Config.User}}", "7:8"),
        ("working_dir: /tmp", "{{.Config.WorkingDir}}", "/tmp"),
        (
            "ulimits: {core: {soft: 0}, stack: {soft: 5, hard: -1}}",
            "{{range .HostConfig.Ulimits}}{{.Name}} {{.Soft}} {{.Hard}};{{end}}",
            "core 0 0;stack 5 -1;",
        ),
        ("shm_size: 8MiB", "{{.HostConfig.ShmSize}}", "8388608"),
        ("init: true", "{{.HostConfig.Init}}", "true"),
        (
            "healthcheck: {command: [\"true\"], interval_ms: 1500, timeout_ms: 500, start_period_ms: 100, retries: 2}",
            "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Timeout}} \
             {{.Config.Healthcheck.StartPeriod}} {{.Config.Healthcheck.Retries}}",
            "[CMD true] 1.5s 500ms 100ms 2",
        ),
        (
            "log: {driver: local, options: {max-size: 1m}}",
            "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}}",
            "local 1m",
        ),
        ("labels: {team: a}", "{{.Config.Labels.team}}", "a"),
    ] {
        let yard = Yard::new();
        let driver = yard.driver();
        let unit = contract::unit(with(keys, "true"));
        driver.prepare(&unit, &quiet).await.unwrap();
        // Newer engines write capabilities with their prefix.
        let told = yard.inspect(format).replace("CAP_", "");
        assert_eq!(told, expected, "{keys}");
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_is_asked_for_is_what_the_program_sees() {
    for (keys, script, expected) in [
        (
            "tmpfs: [{target: /t, size: 1MiB, mode: \"0700\"}]",
            "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'",
            ["700", "1024"],
        ),
        (
            "read_only: true, tmpfs: [{target: /t}]",
            "touch /x 2>/dev/null || echo no; touch /t/x && echo yes",
            ["no", "yes"],
        ),
        ("user: \"7:8\"", "id -u; id -g", ["7", "8"]),
        (
            "hostname: box, extra_hosts: {db: 127.0.0.8}",
            "hostname; grep -c '127.0.0.8.db' /etc/hosts",
            ["box", "1"],
        ),
        (
            "devices: [{source: /dev/zero, target: /dev/nought}], dns: [127.0.0.9]",
            "head -c 3 /dev/nought | wc -c; cut -d' ' -f2 /etc/resolv.conf",
            ["3", "127.0.0.9"],
        ),
        (
            "capabilities: {drop: [ALL]}, ulimits: {core: {soft: 0}}",
            "grep CapEff /proc/self/status | cut -f2; ulimit -c",
            ["0000000000000000", "0"],
        ),
        (
            "init: true, shm_size: 8MiB",
            "cat /proc/1/comm; df -k /dev/shm | tail -1 | awk '{print $2}'",
            ["docker-init", "8192"],
        ),
        ("log: {driver: local}", "echo a; echo b", ["a", "b"]),
    ] {
        let yard = Yard::new();
        let driver = yard.driver();
        let unit = started(&driver, with(keys, script)).await;
        let said = contract::texts(&driver, unit.id, &LogQuery::default(), 2).await;
        assert_eq!(said, expected, "{keys}");
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_network_of_the_nodes_own_is_joined_by_its_name_and_one_that_is_missing_is_named() {
    let yard = Yard::new();
    let driver = yard.driver();
    let name = format!(
        "hostler-{}",
        yard.filter()
            .rsplit('.')
            .next()
            .unwrap()
            .to_ascii_lowercase()
    );
    // It reaches nothing, so that no rule of the machine's firewall is needed.
    yard.docker(&["network", "create", "--internal", &name]);
    let unit = started(
        &driver,
        with(&format!("network: {name}, aliases: [db]"), "true"),
    )
    .await;
    let format = format!("{{{{index (index .NetworkSettings.Networks \"{name}\").Aliases 0}}}}");
    let alias = yard.inspect(&format);
    driver.remove(unit.id, Data::Delete).await.unwrap();
    yard.docker(&["network", "rm", &name]);
    assert_eq!(alias, "db");

    let gone = contract::unit(with(&format!("network: {name}"), "true"));
    let error = driver.prepare(&gone, &quiet).await.unwrap_err();
    assert_eq!(error.code(), "network-not-found", "{error}");
    assert!(error.to_string().contains(&name), "{error}");
    assert_eq!(
        yard.docker(&["ps", "-aq", "--filter", &yard.filter()]),
        "",
        "no container is left"
    );
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_a_container_names_and_the_node_has_not_is_told_by_its_kind() {
    for (keys, code) in [
        (
            "devices: [{source: /dev/no-such-device}]",
            "device-not-found",
        ),
        ("user: nobody-of-that-name", "user-unknown"),
    ] {
        let yard = Yard::new();
        let driver = yard.driver();
        let unit = contract::unit(with(keys, "true"));
        driver.prepare(&unit, &quiet).await.unwrap();
        let error = driver.start(unit.id).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(matches!(error, RuntimeError::Unsatisfiable { .. }));
        driver.remove(unit.id, Data::Delete).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_engines_own_check_of_a_container_is_told() {
    let yard = Yard::new();
    let driver = yard.driver();
    let keys = "healthcheck: {command: [test, -e, /tmp/well], interval_ms: 200, retries: 1}";
    let unit = started(&driver, with(keys, "true")).await;
    let inside = async |words: &[&str]| {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        let command = ExecCommand::new(words);
        let done = exec::run(driver.exec().unwrap(), unit.id, &command, (PATIENCE, 64)).await;
        assert_eq!(done.unwrap().exit, Exit::Code(0), "{command:?}");
    };
    let verdict = async |unit: &Unit| {
        let health = driver.native_health().unwrap();
        health.native_verdict(unit.id).await.unwrap()
    };
    let is_unhealthy = |verdict| matches!(verdict, NativeVerdict::Unhealthy(_));
    until("it is not well", async || {
        is_unhealthy(verdict(&unit).await)
    })
    .await;
    inside(&["touch", "/tmp/well"]).await;
    until("it is well", async || {
        verdict(&unit).await == NativeVerdict::Healthy
    })
    .await;
    inside(&["rm", "/tmp/well"]).await;
    until("it is not well again", async || {
        is_unhealthy(verdict(&unit).await)
    })
    .await;
    let plain = started(&driver, with("network: none", "true")).await;
    assert_eq!(verdict(&plain).await, NativeVerdict::Absent);
}
