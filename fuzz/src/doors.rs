//! A control plane in memory behind all its listeners, with a little of everything in it.

use std::sync::Arc;

use axum::body::Body;
use hostler_control::{Control, ControlConfig, Parts};
use hostler_doors::{Dialect, miaas};
use hostler_kit::{Clock, Entropy, SeededEntropy, SimulatedClock, Tasks};
use hostler_store::MemoryStore;
use http::Request;
use serde_json::Value;

use crate::{BEGINNING, Program, input, runtime};

/// What is there before the first input, in the form of inputs. The words behind `=` are kept from the answer.
const FURNITURE: [(&str, &[(&str, &str)]); 7] = [
    (
        "hostler POST /api/v1/workloads\n\nname: web\nprocess: {command: [\"true\"]}\n",
        &[],
    ),
    (
        "hostler POST /api/v1/nodes/register\n\n\
         {\"name\":\"box\",\"ip\":\"10.0.0.1\",\"capabilities\":{\"os\":\"linux\",\"cpu_count\":4,\"mem_mb\":8192}}",
        &[("node", "/node_id"), ("jwt", "/node_token")],
    ),
    (
        "hostler POST /api/v1/deployments\n\n\
         {\"deployment_id\":\"db\",\"template_id\":\"postgres\",\"rendered_compose\":\"services: {}\",\"env\":{},\"action\":\"apply\"}",
        &[],
    ),
    (
        "hostler POST /api/admin/clients/create\n\n{\"name\":\"acme\"}",
        &[("client", "/client/id"), ("token", "/client/token")],
    ),
    (
        "hostler POST /api/agents/register\nauthorization: Bearer {token}\n\n\
         {\"logical_agent_id\":\"a\",\"instance_id\":\"i-1\",\"instance_type\":\"t3.medium\",\"region\":\"ap-south-1\",\
         \"az\":\"ap-south-1a\",\"ami_id\":\"ami-1\",\"mode\":\"spot\",\"hostname\":\"h\",\"private_ip\":\"10.0.0.1\",\
         \"public_ip\":\"\",\"agent_version\":\"2.0.0\"}",
        &[("agent", "/agent_id")],
    ),
    (
        "hostler POST /api/client/agents/{agent}/config\n\n{\"manualReplicaEnabled\":true}",
        &[],
    ),
    (
        "hostler POST /api/agents/{agent}/pricing-report\nauthorization: Bearer {token}\n\n\
         {\"instance\":{\"instance_id\":\"i-1\",\"instance_type\":\"t3.medium\",\"region\":\"ap-south-1\",\
         \"az\":\"ap-south-1a\",\"mode\":\"spot\",\"pool_id\":\"t3.medium.ap-south-1a\"},\
         \"pricing\":{\"on_demand_price\":0.0448,\"current_spot_price\":0.0134,\"collected_at\":\"2025-01-01T00:00:00Z\",\
         \"spot_pools\":[{\"pool_id\":\"t3.medium.ap-south-1b\",\"instance_type\":\"t3.medium\",\"az\":\"ap-south-1b\",\"price\":0.01}]}}",
        &[],
    ),
];
const REPLICA: (&str, &[(&str, &str)]) = (
    "hostler POST /api/agents/{agent}/replicas\n\n{\"pool_id\":\"t3.medium.ap-south-1b\"}",
    &[("replica", "/replica_id")],
);

pub(crate) fn open() -> Program {
    let runtime = runtime();
    let (control, routers) = runtime.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::starting_at(BEGINNING));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let parts = Parts {
            store: Arc::new(MemoryStore::new(Arc::clone(&clock))),
            clock,
            entropy: Arc::clone(&entropy),
            tasks: Tasks::new(),
        };
        let control = Control::start(ControlConfig::default(), parts)
            .await
            .expect("the control plane starts");
        let doors = hostler_doors::Parts::new(&control, &entropy);
        let mut later = doors.clone();
        later.miaas.dialect = miaas::Dialect::Later;
        let routers = vec![
            ("hostler", doors.router(Dialect::Hostler)),
            ("later", later.router(Dialect::Hostler)),
            ("orchion", doors.router(Dialect::Orchion)),
            ("persys", doors.router(Dialect::Persys)),
            ("figures", doors.router(Dialect::PersysFigures)),
            ("spot", doors.router(Dialect::Spot)),
        ];
        (control, routers)
    });
    let mut program = Program::new(runtime, routers, control);
    for (text, kept) in FURNITURE.into_iter().chain([REPLICA]) {
        program.furnish(text, kept);
    }
    program
}

impl Program {
    fn furnish(&mut self, text: &str, kept: &[(&str, &str)]) {
        let text = input::fill(text.as_bytes(), &self.words);
        let asked: Vec<(String, Request<Body>)> = input::asks(&text);
        for (listener, request) in asked {
            let answer = self.answer(&listener, request);
            let body = String::from_utf8_lossy(answer.body());
            assert!(answer.status().is_success(), "{} {body}", answer.status());
            let body: Value = serde_json::from_str(&body).expect("JSON");
            for (word, place) in kept {
                let value = body.pointer(place).and_then(Value::as_str);
                let value = value.expect("the word is in the answer").to_owned();
                self.words.push((format!("{{{word}}}"), value));
            }
        }
    }
}
