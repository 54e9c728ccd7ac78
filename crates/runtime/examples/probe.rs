//! Says what each driver notes about the machine, one line each: `probe <dir> <engine>`. A test runs it as
//! another user.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use hostler_kit::{SystemClock, Tasks};
use hostler_runtime::Runtime;
use hostler_runtime::container::{ContainerConfig, ContainerRuntime, Registries};
use hostler_runtime::process::{ProcessConfig, ProcessRuntime, ShimCommand};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dir, engine] = words.as_slice() else {
        panic!("two words are needed")
    };
    let process = ProcessRuntime::new(ProcessConfig {
        dir: PathBuf::from(dir),
        shim: ShimCommand {
            program: PathBuf::from("/bin/true"),
            args: Vec::new(),
        },
        clock: Arc::new(SystemClock::new()),
        tasks: Tasks::new(),
    });
    let container = ContainerRuntime::new(ContainerConfig {
        engine: engine.clone(),
        dir: PathBuf::from(dir),
        owner: "probe".to_owned(),
        registries: Registries::default(),
        clock: Arc::new(SystemClock::new()),
        tasks: Tasks::new(),
    });
    let mut stdout = std::io::stdout();
    for runtime in [&process as &dyn Runtime, &container] {
        let fact = runtime.probe().await;
        writeln!(stdout, "{}: {}", fact.kind, fact.note).expect("say the note");
    }
}
