//! What the spot agent reads from others, whatever it is: answers of the metadata service, and the files of an
//! installer as its last word reads them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hostler_agent::spot::{Instance, Spot, Timers, describe_self, shutdown};
use hostler_agent::{ByteStream, Dial};
use hostler_kit::Tasks;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};

use crate::plane::Lines;

/// A service that gives these answers, one for each question, and is gone then.
struct Service {
    answers: Mutex<VecDeque<Vec<u8>>>,
    tasks: Tasks,
}

impl Service {
    fn with(answers: Vec<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into()),
            tasks: Tasks::new(),
        })
    }
}

#[async_trait]
impl Dial for Service {
    async fn dial(&self, _: &str, _: u16) -> io::Result<Box<dyn ByteStream>> {
        let answer = self.answers.lock().unwrap().pop_front();
        let answer = answer.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = duplex(64 << 10);
        self.tasks.spawn("answer", async move {
            // Whoever asked may go before the answer.
            let _ = give(far, &answer).await;
        });
        Ok(Box::new(near))
    }
}

/// Answers once the head of a question is there.
async fn give(mut far: DuplexStream, answer: &[u8]) -> io::Result<()> {
    let mut asked = Vec::new();
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        if far.read_buf(&mut asked).await? == 0 {
            return Ok(());
        }
    }
    far.write_all(answer).await?;
    far.shutdown().await?;
    far.read_to_end(&mut asked).await.map(drop)
}

/// Time that passes at once when there is nothing to do.
fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

fn http(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Answers that are right, nearly right, and no answer at all.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "i-0123",
        "ap-south-1a",
        "spot",
        "10.0.0.1",
        "t3.medium\n",
        "a\nb",
        "",
        " ",
    ];
    let word = proptest::sample::select(words.map(|word| word.as_bytes().to_vec()).to_vec());
    let body = prop_oneof![6 => word, 1 => vec(any::<u8>(), 0..40)];
    let status = prop_oneof![8 => Just(200_u16), 2 => Just(404), 1 => 100..600_u16];
    let whole = (status, body).prop_map(|(status, body)| http(status, &body));
    let cut = (whole.clone(), 0..60_usize).prop_map(|(mut whole, length)| {
        whole.truncate(length);
        whole
    });
    prop_oneof![16 => whole, 1 => cut, 1 => vec(any::<u8>(), 0..80)]
}

fn spot(root: &std::path::Path, client_token: String) -> Spot {
    Spot {
        client_token,
        logical_agent_id: "agent".to_owned(),
        instance: Instance::default(),
        agent_version: "2.0.0".to_owned(),
        root: root.to_owned(),
        timers: Timers::default(),
        prices: None,
        replica: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_metadata_service_says_is_who_the_machine_is_or_why_it_is_not_known(
        answers in vec(answer(), 0..10),
    ) {
        let service = Service::with(answers);
        let told = runtime().block_on(describe_self("http://169.254.169.254", service));
        match told {
            Ok(instance) => {
                for needed in [&instance.id, &instance.kind, &instance.az] {
                    prop_assert!(!needed.is_empty() && !needed.contains('\n'), "{instance:?}");
                    prop_assert_eq!(needed.trim(), needed);
                }
                prop_assert!(["spot", "ondemand"].contains(&instance.mode.as_str()));
                prop_assert!(instance.az.starts_with(&instance.region));
            }
            Err(problem) => prop_assert!(!problem.is_empty()),
        }
    }

    #[test]
    fn whatever_is_in_the_files_the_last_word_ends_and_tells_no_token(
        id in prop_oneof![Just(b"agent-1\n".to_vec()), vec(any::<u8>(), 0..40)],
        token in "\\PC{8,20}|canary-[\\x00-\\x1f]{1,3}canary",
        server in prop_oneof![4 => Just("http://server:5000".to_owned()), 1 => "\\PC{0,30}"],
        answer in answer(),
    ) {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("agent_id.txt"), &id).unwrap();
        let (spot, lines) = (spot(root.path(), token.clone()), Lines::new());
        let service = Service::with(vec![answer]);
        let ended = shutdown((server.as_str(), None), &spot, service, lines.clone());
        let ended = runtime().block_on(ended);
        let told = format!("{ended:?} {:?}", lines.texts());
        prop_assert!(!told.contains(&token), "{told}");
        prop_assert!(ended.is_ok() || server != "http://server:5000", "{told}");
    }
}

/// What the first of these tests is to find in most of its cases, once.
#[test]
fn an_instance_is_described_by_its_service() {
    let said = [
        "token",
        "ap-south-1a",
        "spot",
        "i-1",
        "t3.medium",
        "ami-1",
        "10.0.0.1",
    ];
    let mut answers: Vec<_> = said.map(|word| http(200, word.as_bytes())).into();
    answers.push(http(404, b"none"));
    let told = runtime().block_on(describe_self("http://here", Service::with(answers)));
    let instance = told.unwrap();
    assert_eq!(
        (instance.id.as_str(), instance.kind.as_str()),
        ("i-1", "t3.medium")
    );
    assert_eq!(
        (instance.region.as_str(), instance.mode.as_str()),
        ("ap-south-1", "spot")
    );
    assert_eq!(instance.public_ip.as_deref(), Some(""));
}
