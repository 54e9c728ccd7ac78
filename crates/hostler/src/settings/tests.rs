//! The order of the layers, and what they refuse.

use super::*;
use crate::args::{Cli, Command};
use crate::status::ExitStatus;
use clap::Parser as _;
use std::path::Path;

fn server(line: &[&str], environment: &Environment) -> Result<ServerSettings, Failure> {
    let words = ["hostler", "server"].iter().chain(line);
    let Command::Server(args) = Cli::try_parse_from(words).unwrap().command else {
        unreachable!()
    };
    ServerSettings::resolve(args, environment)
}

fn agent(line: &[&str], environment: &Environment) -> Result<AgentSettings, Failure> {
    let words = ["hostler", "agent"].iter().chain(line);
    let Command::Agent(args) = Cli::try_parse_from(words).unwrap().command else {
        unreachable!()
    };
    AgentSettings::resolve(*args, environment)
}

fn with_file(
    name: &str,
    text: &str,
    variables: &[(&str, &str)],
) -> (tempfile::TempDir, Environment) {
    let etc = tempfile::tempdir().unwrap();
    std::fs::write(etc.path().join(name), text).unwrap();
    let mut environment = Environment::of(variables);
    environment.etc = etc.path().to_owned();
    (etc, environment)
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let text = "listen = \"127.0.0.1:3\"\ndata_dir = \"/from/file\"\nlog_level = \"error\"\n";
    let variables = [
        ("HOSTLER_LISTEN", "127.0.0.1:2"),
        ("HOSTLER_DATA_DIR", "/from/env"),
    ];
    let (_etc, environment) = with_file("server.toml", text, &variables);
    let settings = server(&["--listen", "127.0.0.1:1"], &environment).unwrap();
    assert_eq!(settings.listen.port(), 1);
    assert_eq!(settings.data_dir, PathBuf::from("/from/env"));
    assert_eq!(settings.log.filter, "error");
    assert_eq!(settings.log.format, telemetry::Format::Text);
}

#[test]
fn how_many_may_connect_is_told_by_environment_or_file_and_is_a_number() {
    let text = "connections = 500\nconnections_per_address = 50\n";
    let home = ("HOME", "/home/ada");
    let variables = [home, ("HOSTLER_CONNECTIONS_PER_ADDRESS", "60")];
    let (_etc, environment) = with_file("server.toml", text, &variables);
    let caps = server(&[], &environment).unwrap().caps;
    assert_eq!((caps.connections, caps.per_address), (500, 60));
    let default = server(&[], &Environment::of(&[home])).unwrap().caps;
    assert_eq!(default, Caps::default());
    for wrong in ["many", "0", "-1"] {
        let environment = Environment::of(&[home, ("HOSTLER_CONNECTIONS", wrong)]);
        let refused = server(&[], &environment).unwrap_err();
        assert_eq!(refused.status, ExitStatus::Usage, "{wrong}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let (_etc, environment) = with_file("server.toml", "insecure = true\n\nlisen = \"x\"\n", &[]);
    let refused = server(&[], &environment).unwrap_err();
    assert_eq!(refused.status, ExitStatus::Usage);
    assert!(
        refused.sentence.contains("server.toml:3:1"),
        "{}",
        refused.sentence
    );
    assert!(refused.sentence.contains("lisen"), "{}", refused.sentence);
}

#[test]
fn a_named_file_must_exist_and_the_usual_one_need_not() {
    let environment = Environment::of(&[("HOME", "/home/ada")]);
    let refused = server(&["--config", "/nonexistent/a.toml"], &environment).unwrap_err();
    assert_eq!(refused.status, ExitStatus::Usage);
    assert!(server(&["--insecure"], &environment).is_ok());
}

#[test]
fn a_server_has_a_login_unless_it_is_told_not_to() {
    let environment = Environment::of(&[("HOME", "/home/ada")]);
    for listen in ["0.0.0.0:0", "127.0.0.1:0", "[::1]:0"] {
        let resolved = server(&["--listen", listen], &environment).unwrap();
        assert!(resolved.trust.is_some(), "{listen}");
    }
    let told = Environment::of(&[("HOME", "/home/ada"), ("HOSTLER_INSECURE", "true")]);
    assert!(server(&[], &told).unwrap().trust.is_none());
    // Another system's door beside it asks who comes, too, and its port speaks TLS.
    let opened = server(&["--compat", "spot"], &environment).unwrap();
    assert_eq!(opened.doors[&Contract::Spot], Auth::Token);
    assert_eq!(opened.compat[0].tls, Tls::On);
    let plain = server(&["--compat", "spot"], &told).unwrap();
    assert!(plain.doors.is_empty() && plain.compat[0].tls == Tls::Off);
    let public = ("JWT_SECRET", "development-secret-change-in-production");
    let public = Environment::of(&[("HOME", "/home/ada"), public]);
    assert!(server(&[], &public).is_err());
    assert!(server(&["--insecure"], &public).is_ok());
    let vague = Environment::of(&[("HOME", "/home/ada"), ("HOSTLER_INSECURE", "maybe")]);
    assert!(server(&[], &vague).is_err());
}

#[test]
fn up_and_agent_listen_beyond_loopback_only_when_told_so() {
    let home = Environment::of(&[("HOME", "/home/ada")]);
    let told = Environment::of(&[("HOME", "/home/ada"), ("HOSTLER_INSECURE", "1")]);
    let up = |line: &[&str], environment: &Environment| {
        let words = ["hostler", "up"].iter().chain(line);
        let Command::Up(args) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!()
        };
        UpSettings::resolve(args, environment)
    };
    let wide = ["--listen", "0.0.0.0:0"];
    assert_eq!(up(&wide, &home).unwrap_err().status, ExitStatus::Usage);
    assert!(up(&[&wide[..], &["--insecure"]].concat(), &home).is_ok());
    assert!(up(&wide, &told).is_ok());
    assert_eq!(agent(&wide, &home).unwrap_err().status, ExitStatus::Usage);
    assert!(agent(&wide, &told).unwrap().listen.is_some());
}

#[test]
fn an_agent_listens_nowhere_unless_flag_variable_or_file_say_so() {
    let text = "listen = \"127.0.0.1:3\"\n";
    let port = |settings: AgentSettings| settings.listen.map(|listen| listen.port());
    let home = Environment::of(&[("HOME", "/home/ada"), ("HOSTLER_LISTEN", "127.0.0.1:9")]);
    assert_eq!(port(agent(&[], &home).unwrap()), None);
    let (_etc, file) = with_file("agent.toml", text, &[("HOME", "/home/ada")]);
    assert_eq!(port(agent(&[], &file).unwrap()), Some(3));
    let variables = [
        ("HOME", "/home/ada"),
        ("HOSTLER_AGENT_LISTEN", "127.0.0.1:2"),
    ];
    let (_etc, both) = with_file("agent.toml", text, &variables);
    assert_eq!(port(agent(&[], &both).unwrap()), Some(2));
    assert_eq!(
        port(agent(&["--listen", "127.0.0.1:1"], &both).unwrap()),
        Some(1)
    );
}

#[test]
fn a_name_is_refused_if_no_node_can_have_it() {
    let environment = Environment::of(&[("HOME", "/home/ada")]);
    let long = "x".repeat(254);
    for name in ["my box", "a\tb", long.as_str()] {
        let refused = agent(&["--name", name], &environment).unwrap_err();
        assert_eq!(refused.status, ExitStatus::Usage, "{name}");
    }
    assert!(agent(&["--name", "Box_7.example"], &environment).is_ok());
}

#[test]
fn the_data_directory_follows_the_user() {
    let mut environment = Environment::of(&[("HOME", "/home/ada")]);
    let line = ["--listen", "127.0.0.1:0"];
    let directory = |environment: &Environment| server(&line, environment).unwrap().data_dir;
    assert_eq!(
        directory(&environment),
        PathBuf::from("/home/ada/.local/share/hostler")
    );
    environment.is_root = true;
    assert_eq!(directory(&environment), PathBuf::from("/var/lib/hostler"));
    let moved = Environment::of(&[("HOME", "/home/ada"), ("XDG_DATA_HOME", "/data")]);
    assert_eq!(directory(&moved), PathBuf::from("/data/hostler"));
    assert!(server(&line, &Environment::of(&[])).is_err());
}

#[test]
fn labels_of_all_layers_come_together() {
    let text = "name = \"box\"\n[labels]\nzone = \"a\"\nrack = \"1\"\n[reserve]\ncpu = \"250m\"\n";
    let variables = [("HOSTLER_LABELS", "zone=b,disk=ssd"), ("HOME", "/home/ada")];
    let (_etc, environment) = with_file("agent.toml", text, &variables);
    let settings = agent(
        &[
            "--label",
            "disk=nvme",
            "--reserve-memory",
            "1GiB",
            "--reserve-disk",
            "2GiB",
        ],
        &environment,
    )
    .unwrap();
    let expected = [("disk", "nvme"), ("rack", "1"), ("zone", "b")];
    let labels: Vec<_> = settings
        .labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(labels, expected);
    assert_eq!(settings.name.as_deref(), Some("box"));
    assert_eq!(settings.reserve.cpu, MilliCpu(250));
    assert_eq!(settings.reserve.memory, Bytes(1 << 30));
    assert_eq!(settings.reserve.disk, Bytes(2 << 30));
}

#[test]
fn an_address_of_a_server_is_http_with_or_without_tls() {
    assert_eq!(
        url("localhost:8080", "--addr").unwrap(),
        "http://localhost:8080"
    );
    assert_eq!(url("http://box:1/", "--addr").unwrap(), "http://box:1");
    assert_eq!(url("https://box:1", "--addr").unwrap(), "https://box:1");
    assert!(url("ftp://box:1", "--addr").is_err());
    assert!(url("http://", "--addr").is_err());
}

#[test]
fn a_login_of_another_server_does_not_hide_the_admin_of_this_one() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    let (config, data) = (at("config"), at("data"));
    let variables = [
        ("XDG_CONFIG_HOME", config.as_str()),
        ("HOSTLER_DATA_DIR", data.as_str()),
    ];
    let environment = Environment::of(&variables);
    let write = |addr: &str, token: &str, path: &Path| {
        let (addr, token) = (addr.to_owned(), token.to_owned());
        let login = Login {
            addr,
            token,
            ca: None,
        };
        login.write(path).unwrap();
    };
    let own = Login::own_path(&environment).unwrap();
    write("https://far:8080", "theirs", &own);
    write(
        "https://127.0.0.1:8080",
        "ours",
        &Login::admin_path(Path::new(&data)),
    );
    let token = |addr: Option<&str>| {
        let found = Login::find(&environment, addr).unwrap();
        found.map(|login| login.token)
    };
    assert_eq!(token(None).as_deref(), Some("theirs"));
    assert_eq!(
        token(Some("https://127.0.0.1:8080")).as_deref(),
        Some("ours")
    );
    assert_eq!(token(Some("https://far:8080")).as_deref(), Some("theirs"));
    assert_eq!(token(Some("https://other:8080")), None);
}

#[test]
fn waiting_is_the_default() {
    assert_eq!(wait(&WaitArgs::default()), Some(DEFAULT_WAIT));
    assert_eq!(
        wait(&WaitArgs {
            detach: true,
            ..WaitArgs::default()
        }),
        None
    );
}

#[test]
fn what_holds_a_secret_shows_none_in_debug_prints() {
    let text =
        "data_dir = \"/x\"\n[miaas]\njwt_secret = \"canary\"\n[orchion]\napi_key = \"canary\"\n";
    let (_etc, mut environment) = with_file("server.toml", text, &[]);
    let file: ServerFile = toml::from_str(text).unwrap();
    let server = server(&["--insecure"], &environment).unwrap();
    assert_eq!(&*server.contracts.jwt.as_ref().unwrap().secret, "canary");
    environment = Environment::of(&[("HOSTLER_TOKEN", "canary"), ("JWT_SECRET", "canary")]);
    let line = ["hostler", "install", "agent", "--token", "canary"];
    let install = Cli::try_parse_from(line).unwrap();
    let client = ClientSettings::resolve(crate::args::ClientArgs::default(), &environment);
    let client = client.unwrap();
    assert_eq!(client.token.as_deref(), Some("canary"));
    for text in [
        format!("{file:?}"),
        format!("{server:?}"),
        format!("{client:?}"),
        format!("{install:?}"),
        format!("{environment:?}"),
    ] {
        assert!(!text.contains("canary"), "{text}");
    }
}
