//! An agent that starts one process and is killed by its test: `agent <dir> <shim> <shell script>`. Says the
//! unit's id once the unit runs.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use hostler_kit::{SystemClock, Tasks};
use hostler_model::spec::WorkloadSpec;
use hostler_runtime::process::{ProcessConfig, ProcessRuntime, ShimCommand};
use hostler_runtime::{Runtime as _, contract};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dir, shim, script] = words.as_slice() else {
        panic!("three words are needed")
    };
    let runtime = ProcessRuntime::new(ProcessConfig {
        dir: PathBuf::from(dir),
        shim: ShimCommand {
            program: PathBuf::from(shim),
            args: Vec::new(),
        },
        clock: Arc::new(SystemClock::new()),
        tasks: Tasks::new(),
    });
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let unit = contract::unit(WorkloadSpec::of_process("survivor", command));
    runtime.prepare(&unit, &|_| {}).await.expect("prepare");
    runtime.start(unit.id).await.expect("start");
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", unit.id).expect("say the id");
    stdout.flush().expect("say the id");
    std::future::pending().await
}
