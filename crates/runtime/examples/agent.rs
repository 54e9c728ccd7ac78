//! An agent that carries orders out and is killed by its test: `agent <orders as JSON>`. Says `done` once all is done,
//! and stays.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use hostler_kit::{SystemClock, Tasks};
use hostler_model::spec::{Accelerator, WorkloadSpec};
use hostler_model::{UnitId, WorkloadId};
use hostler_runtime::compose::{ComposeConfig, ComposeRuntime, Programs};
use hostler_runtime::container::{ContainerConfig, ContainerRuntime, Registries};
use hostler_runtime::process::{ProcessConfig, ProcessRuntime, ShimCommand};
use hostler_runtime::vm::{VmConfig, VmRuntime, VmSettings};
use hostler_runtime::{Data, ExecCommand, Runtime, Unit};
use serde::Deserialize;

#[derive(Deserialize)]
struct Orders {
    driver: Driver,
    dir: PathBuf,
    #[serde(default)]
    remove: Vec<UnitId>,
    #[serde(default)]
    stop: Vec<UnitId>,
    run: Vec<Wanted>,
    /// Begun in each unit, once it runs.
    command: Option<ExecCommand>,
}

#[derive(Deserialize)]
struct Wanted {
    id: UnitId,
    workload: WorkloadId,
    spec: WorkloadSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Driver {
    Process {
        shim: PathBuf,
    },
    Vm {
        shim: PathBuf,
        qemu: String,
    },
    Container {
        engine: String,
    },
    Compose {
        engine: String,
        environment: BTreeMap<String, String>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let told = std::env::args().nth(1).expect("orders are given");
    let orders: Orders = serde_json::from_str(&told).expect("orders are JSON");
    let runtime = driver(orders.driver, orders.dir);
    for id in orders.remove {
        runtime.remove(id, Data::Keep).await.expect("remove");
    }
    for id in orders.stop {
        runtime.stop(id).await.expect("stop");
    }
    let mut begun = Vec::new();
    for wanted in orders.run {
        let unit = Unit {
            id: wanted.id,
            workload: wanted.workload,
            workload_name: wanted.spec.name.clone(),
            slot: 0,
            spec: Arc::new(wanted.spec),
            volumes: Vec::new(),
        };
        runtime.prepare(&unit, &|_| {}).await.expect("prepare");
        runtime.start(unit.id).await.expect("start");
        if let (Some(command), Some(inside)) = (&orders.command, runtime.exec()) {
            let mut execution = inside.begin(unit.id, None, command).await.expect("begin");
            execution.output().await.expect("its first word");
            begun.push(execution);
        }
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "done").expect("say so");
    stdout.flush().expect("say so");
    std::future::pending::<()>().await;
    drop(begun);
}

fn driver(driver: Driver, dir: PathBuf) -> Arc<dyn Runtime> {
    let clock = Arc::new(SystemClock::new());
    let tasks = Tasks::new();
    let owner = "test".to_owned();
    let shim_of = |program| ShimCommand {
        program,
        args: Vec::new(),
    };
    match driver {
        Driver::Process { shim } => Arc::new(ProcessRuntime::new(ProcessConfig {
            dir,
            shim: shim_of(shim),
            clock,
            tasks,
        })),
        Driver::Vm { shim, qemu } => Arc::new(VmRuntime::new(VmConfig {
            dir,
            shim: shim_of(shim),
            clock,
            tasks,
            settings: VmSettings {
                qemu,
                accelerator: Accelerator::Tcg,
                ..VmSettings::default()
            },
        })),
        Driver::Container { engine } => Arc::new(ContainerRuntime::new(ContainerConfig {
            engine,
            dir,
            owner,
            registries: Registries::default(),
            clock,
            tasks,
        })),
        Driver::Compose {
            engine,
            environment,
        } => Arc::new(ComposeRuntime::new(ComposeConfig {
            engine,
            dir,
            owner,
            programs: Programs {
                docker: "/no/such/docker".into(),
                ..Programs::default()
            },
            environment: environment.into_iter().collect(),
            clock,
            tasks,
        })),
    }
}
