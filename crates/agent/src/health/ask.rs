//! Asking a copy whether it is well. Each question has a time limit and keeps little of the answer.
//!
//! Copies are asked over the loopback address of their node: a process listens there, and an engine publishes a
//! container's port there.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use hostler_model::spec::{HealthSpec, HttpCheck, WorkloadSpec};
use hostler_model::{Exit, FailureCode, UnitId};
use hostler_runtime::{ExecCommand, NativeVerdict, Runtime, RuntimeError, exec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Answer;

/// Of what a check says, so much is shown.
const MOST_WORDS: usize = 256;
/// The status stands in the first line of an answer.
const MOST_STATUS_LINE: usize = 128;

/// Asks once.
pub(crate) async fn ask(runtime: &dyn Runtime, unit: UnitId, spec: &WorkloadSpec) -> Answer {
    let Some(health) = &spec.health else {
        return Answer::Undecided;
    };
    let limit = Duration::from_millis(health.timeout_ms);
    let asking = ask_without_limit(runtime, unit, (spec, health), limit);
    let answer = tokio::time::timeout(limit + GRACE, asking).await;
    answer.unwrap_or_else(|_| too_slow(limit))
}

/// A command is ended by its own limit; this is for a driver that hangs.
const GRACE: Duration = Duration::from_secs(1);

fn too_slow(limit: Duration) -> Answer {
    Answer::Fail(format!("no answer within {} ms", limit.as_millis()))
}

async fn ask_without_limit(
    runtime: &dyn Runtime,
    unit: UnitId,
    (spec, health): (&WorkloadSpec, &HealthSpec),
    limit: Duration,
) -> Answer {
    let network = async {
        if let Some(http) = &health.http {
            return page(spec.host_port(http.port).unwrap_or(http.port), http).await;
        }
        match &health.tcp {
            Some(tcp) => connect(spec.host_port(tcp.port).unwrap_or(tcp.port))
                .await
                .map(|_| ()),
            None => Ok(()),
        }
    };
    if health.http.is_some() || health.tcp.is_some() {
        return match tokio::time::timeout(limit, network).await {
            Ok(Ok(())) => Answer::Pass,
            Ok(Err(why)) => Answer::Fail(why),
            Err(_) => too_slow(limit),
        };
    }
    if health.native {
        return native(runtime, unit).await;
    }
    command(runtime, unit, health, limit).await
}

async fn connect(port: u16) -> Result<TcpStream, String> {
    let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    connected.map_err(|error| format!("port {port}: {error}"))
}

async fn page(port: u16, http: &HttpCheck) -> Result<(), String> {
    let mut stream = connect(port).await?;
    let told = |error: io::Error| format!("port {port}: {error}");
    stream
        .write_all(request(port, http).as_bytes())
        .await
        .map_err(told)?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < MOST_STATUS_LINE {
        let mut piece = [0; MOST_STATUS_LINE];
        match stream.read(&mut piece).await.map_err(told)? {
            0 => break,
            read => line.extend_from_slice(&piece[..read]),
        }
    }
    match status(&line) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("{} answers with status {status}", http.path)),
        None => Err(format!("port {port} does not speak HTTP")),
    }
}

fn request(port: u16, http: &HttpCheck) -> String {
    let mut text = format!("GET {} HTTP/1.1\r\nConnection: close\r\n", http.path);
    let is_named = |name: &str| http.headers.keys().any(|it| it.eq_ignore_ascii_case(name));
    if !is_named("host") {
        text.push_str(&format!("Host: localhost:{port}\r\n"));
    }
    if !is_named("user-agent") {
        text.push_str("User-Agent: hostler-health\r\n");
    }
    for (name, value) in &http.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text
}

/// The number in `HTTP/1.1 204 No Content`.
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line.split(|byte| *byte == b'\n').next()?).ok()?;
    let mut words = line.split_whitespace();
    words
        .next()
        .filter(|version| version.starts_with("HTTP/"))?;
    words.next()?.parse().ok()
}

async fn native(runtime: &dyn Runtime, unit: UnitId) -> Answer {
    let Some(engine) = runtime.native_health() else {
        return Answer::Fail(format!(
            "a {} has no healthcheck of its own",
            runtime.kind()
        ));
    };
    match engine.native_verdict(unit).await {
        Ok(NativeVerdict::Healthy) => Answer::Pass,
        Ok(NativeVerdict::Undecided) => Answer::Undecided,
        Ok(NativeVerdict::Unhealthy(said)) => Answer::Fail(short(&said, "the engine says so")),
        Ok(NativeVerdict::Absent) => {
            Answer::Fail("the image has no healthcheck of its own".to_owned())
        }
        Err(error) => of_error(&error),
    }
}

async fn command(
    runtime: &dyn Runtime,
    unit: UnitId,
    health: &HealthSpec,
    limit: Duration,
) -> Answer {
    let Some(inside) = runtime.exec() else {
        return Answer::Fail(format!("no command can be run inside a {}", runtime.kind()));
    };
    let command = ExecCommand::new(health.command.clone());
    match exec::run(inside, unit, &command, (limit, MOST_WORDS)).await {
        Ok(done) if done.exit.is_success() => Answer::Pass,
        Ok(done) if done.exit == Exit::TimedOut => too_slow(limit),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.output);
            let exit = done.exit.to_string();
            match said.trim() {
                "" => Answer::Fail(exit),
                said => Answer::Fail(format!("{exit}: {}", short(said, ""))),
            }
        }
        Err(error) => of_error(&error),
    }
}

/// Without an answer of the engine nothing is known, and a unit that has just ended is not unhealthy.
fn of_error(error: &RuntimeError) -> Answer {
    match error.failure() {
        FailureCode::EngineDown | FailureCode::UnitNotFound | FailureCode::UnitNotRunning => {
            Answer::Undecided
        }
        _ => Answer::Fail(short(&error.to_string(), "")),
    }
}

fn short(text: &str, otherwise: &str) -> String {
    let text = text.trim();
    match text.is_empty() {
        true => otherwise.to_owned(),
        false => text[..text.floor_char_boundary(MOST_WORDS)].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use hostler_kit::SystemClock;
    use hostler_model::spec::{Kind, PortMapping, Protocol, TcpCheck};
    use hostler_runtime::contract;
    use hostler_runtime::fake::{FakeMachine, FakeRuntime};
    use tokio::net::TcpListener;

    use super::*;

    struct World {
        machine: Arc<FakeMachine>,
        runtime: FakeRuntime,
        unit: hostler_runtime::Unit,
    }

    async fn running(kind: Kind, health: HealthSpec, port: u16) -> World {
        let machine = FakeMachine::new(Arc::new(SystemClock::new()));
        let runtime = FakeRuntime::new(Arc::clone(&machine), kind);
        let mut spec = match kind {
            Kind::Container => WorkloadSpec::of_container("web", "web", vec![]),
            _ => WorkloadSpec::of_process("web", vec!["serve".to_owned()]),
        };
        spec.health = Some(health);
        spec.ports = vec![PortMapping {
            name: None,
            host: port,
            target: Some(80),
            protocol: Protocol::Tcp,
        }];
        let unit = contract::unit(spec);
        runtime.prepare(&unit, &|_| {}).await.unwrap();
        runtime.start(unit.id).await.unwrap();
        World {
            machine,
            runtime,
            unit,
        }
    }

    impl World {
        async fn ask(&self) -> Answer {
            ask(&self.runtime, self.unit.id, &self.unit.spec).await
        }

        async fn refused(&self, words: &str) {
            match self.ask().await {
                Answer::Fail(why) => assert!(why.contains(words), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }

    fn http(path: &str) -> HealthSpec {
        HealthSpec {
            http: Some(HttpCheck {
                port: 80,
                path: path.to_owned(),
                headers: BTreeMap::from([("X-Check".to_owned(), "yes".to_owned())]),
            }),
            ..HealthSpec::default()
        }
    }

    /// Answers each connection with the next text, and tells what was asked.
    async fn server(answers: Vec<&'static str>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = vec![0; 4096];
                let read = stream.read(&mut text).await.unwrap();
                text.truncate(read);
                asked.push(String::from_utf8(text).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        };
        #[expect(clippy::disallowed_methods, reason = "the test owns and joins it")]
        let task = tokio::spawn(serving);
        (port, task)
    }

    #[tokio::test]
    async fn a_page_is_well_with_a_status_of_the_two_and_three_hundreds() {
        let answers = vec![
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "SSH-2.0-nothing\r\n",
        ];
        let (port, asked) = server(answers).await;
        let world = running(Kind::Process, http("/ready?deep=1"), port).await;
        assert_eq!(world.ask().await, Answer::Pass);
        assert_eq!(world.ask().await, Answer::Pass);
        world.refused("/ready?deep=1 answers with status 503").await;
        world.refused("does not speak HTTP").await;
        let asked = asked.await.unwrap();
        assert!(
            asked[0].starts_with("GET /ready?deep=1 HTTP/1.1\r\n"),
            "{}",
            asked[0]
        );
        assert!(asked[0].contains("X-Check: yes\r\n"), "{}", asked[0]);
        assert!(asked[0].ends_with("\r\n\r\n"), "{}", asked[0]);
        world.refused("port").await;
    }

    #[tokio::test]
    async fn a_port_is_well_while_it_takes_connections_and_silence_has_a_limit() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tcp = HealthSpec {
            tcp: Some(TcpCheck { port: 80 }),
            ..HealthSpec::default()
        };
        assert_eq!(
            running(Kind::Process, tcp, port).await.ask().await,
            Answer::Pass
        );
        let silent = HealthSpec {
            timeout_ms: 50,
            ..http("/")
        };
        let world = running(Kind::Process, silent, port).await;
        world.refused("no answer within 50 ms").await;
        drop(listener);
        let world = running(Kind::Process, http("/"), port).await;
        world.refused(&format!("port {port}")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_is_well_when_it_ends_with_0_and_its_words_are_kept() {
        let check = HealthSpec {
            command: vec!["probe".to_owned()],
            timeout_ms: 50,
            ..HealthSpec::default()
        };
        let world = running(Kind::Process, check, 1).await;
        world.refused("no answer within 50 ms").await;
        world.machine.set_command("probe", Exit::Code(0), "fine");
        assert_eq!(world.ask().await, Answer::Pass);
        world
            .machine
            .set_command("probe", Exit::Code(2), "queue is full");
        world.refused("exit code 2: queue is full").await;
        world.machine.set_down(Some("asleep"));
        assert_eq!(world.ask().await, Answer::Undecided);
        world.machine.set_down(None);
        world.machine.crash(world.unit.id, Exit::Code(1));
        assert_eq!(world.ask().await, Answer::Undecided);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engines_own_verdict_is_taken_over() {
        let check = HealthSpec {
            native: true,
            ..HealthSpec::default()
        };
        let world = running(Kind::Container, check, 1).await;
        world.refused("no healthcheck of its own").await;
        for (verdict, answer) in [
            (NativeVerdict::Undecided, Answer::Undecided),
            (NativeVerdict::Healthy, Answer::Pass),
            (
                NativeVerdict::Unhealthy("no db\n".to_owned()),
                Answer::Fail("no db".to_owned()),
            ),
        ] {
            world.machine.set_native_verdict(verdict);
            assert_eq!(world.ask().await, answer);
        }
    }
}
