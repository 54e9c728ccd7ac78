use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use hostler_kit::SeededEntropy;
use hostler_model::spec::WorkloadSpec;
use hostler_model::{Intent, UnitId, WorkloadId};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn entry(seed: u128) -> Entry {
    let spec = WorkloadSpec::of_process("web", vec!["sleep".to_owned(), "9".to_owned()]);
    let unit = UnitId {
        assignment: AssignmentId::mint(NOW, seed),
        generation: 3,
    };
    let item = IntentItem {
        unit,
        workload: WorkloadId::mint(NOW, 1),
        workload_name: "web".to_owned(),
        slot: 0,
        intent: Intent::Run,
        revision: 1,
        spec: Arc::new(spec),
        is_finished: false,
    };
    Entry {
        item,
        finished: None,
        crash_loop: None,
    }
}

fn batch(entries: impl IntoIterator<Item = Entry>) -> Batch {
    let entries = entries
        .into_iter()
        .map(|entry| (entry.item.unit.assignment, Some(entry)));
    Batch {
        fleet: None,
        entries: entries.collect(),
    }
}

fn fleet() -> Fleet {
    let origin = Origin {
        fleet_id: FleetId::mint(NOW, 1),
        node_id: NodeId::mint(NOW, 2),
        store_epoch: StoreEpoch::mint(NOW, 3),
    };
    Fleet {
        origin,
        seen: Seen {
            revision: 7,
            run: u64::MAX,
        },
        is_in_doubt: true,
        since: NOW,
    }
}

#[test]
fn a_fleet_record_of_an_older_agent_knows_no_revision_and_older_agents_read_ours() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let path = dir.path().join("agent/fleet.json");
    files::write(&path, &fleet().origin).unwrap();
    let read = ledger.load().fleet.unwrap();
    assert_eq!((read.origin, read.seen), (fleet().origin, Seen::default()));
    assert!(!read.is_in_doubt);

    files::write(&path, &fleet()).unwrap();
    assert_eq!(files::read(&path), Ok(Some(fleet().origin)));
}

#[test]
fn what_was_saved_is_loaded_by_the_next_agent() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let (mut kept, dropped) = (entry(1), entry(2));
    ledger
        .save(&batch([kept.clone(), dropped.clone()]))
        .unwrap();
    kept.finished = Some(Finished {
        exit: Exit::Code(0),
        at: NOW,
        runs: 2,
    });
    let mut second = batch([kept.clone()]);
    second.entries.insert(dropped.item.unit.assignment, None);
    second.fleet = Some(fleet());
    ledger.save(&second).unwrap();
    drop(ledger);

    let loaded = Ledger::open(dir.path()).unwrap().load();
    assert_eq!(
        loaded.entries,
        BTreeMap::from([(kept.item.unit.assignment, kept)])
    );
    assert_eq!((loaded.fleet, loaded.damaged), (Some(fleet()), 0));
}

#[test]
fn a_second_agent_on_one_data_directory_is_refused_by_pid() {
    let dir = tempfile::tempdir().unwrap();
    let first = Ledger::open(dir.path()).unwrap();
    let refused = Ledger::open(dir.path()).unwrap_err();
    assert!(
        matches!(refused, StartError::InUse { pid: Some(pid), .. } if pid == std::process::id())
    );
    drop(first);
    Ledger::open(dir.path()).unwrap();
}

#[test]
fn a_corrupt_file_is_set_aside_and_the_rest_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let (good, bad) = (entry(1), entry(2));
    ledger.save(&batch([good.clone(), bad.clone()])).unwrap();
    let path = dir
        .path()
        .join(format!("agent/intent/{}.json", bad.item.unit.assignment));
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    std::fs::write(dir.path().join("agent/fleet.json"), b"\0\0\0").unwrap();

    let loaded = ledger.load();
    assert_eq!(
        loaded.entries.keys().collect::<Vec<_>>(),
        [&good.item.unit.assignment]
    );
    assert_eq!((loaded.fleet, loaded.damaged), (None, 2));
    assert!(path.with_extension("json.corrupt").exists() && !path.exists());
    assert_eq!(ledger.load().damaged, 0);
}

#[test]
fn a_crash_while_writing_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let kept = entry(1);
    ledger.save(&batch([kept.clone()])).unwrap();
    let name = format!(".unfinished-{}.json", kept.item.unit.assignment);
    let half = dir.path().join("agent/intent").join(name);
    std::fs::write(&half, b"{\"item\":").unwrap();
    assert_eq!(ledger.load().entries.len(), 1);
    drop(ledger);
    Ledger::open(dir.path()).unwrap();
    assert!(!half.exists());
}

#[test]
fn the_identity_is_secret_stays_and_takes_a_new_name() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let entropy = SeededEntropy::new(1);
    let first = ledger.identity((None, "host"), &entropy).unwrap();
    assert_eq!((first.name.as_str(), first.identity.len()), ("host", 32));
    let again = ledger.identity((None, "renamed"), &entropy).unwrap();
    assert!(
        again == first,
        "a host name that changes does not rename the node"
    );
    let named = ledger.identity((Some("edge"), "host"), &entropy).unwrap();
    assert_eq!(named.name, "edge");
    assert_eq!(named.identity, first.identity);
    let mode = std::fs::metadata(dir.path().join("agent/identity.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_corrupt_identity_makes_a_new_node_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let entropy = SeededEntropy::new(1);
    let first = ledger.identity((None, "host"), &entropy).unwrap();
    std::fs::write(dir.path().join("agent/identity.json"), b"[]").unwrap();
    let second = ledger.identity((None, "host"), &entropy).unwrap();
    assert_ne!(first.identity, second.identity);
    assert!(dir.path().join("agent/identity.json.corrupt").exists());
}

#[test]
fn a_command_is_on_record_before_and_after_its_effect() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let id = CommandId::mint(NOW, 1);
    assert_eq!(ledger.command(id), None);
    let mut record = CommandRecord {
        id,
        command: CommandKind::Cleanup,
        begun_at: NOW,
        result: None,
    };
    ledger.record_command(&record).unwrap();
    assert_eq!(ledger.command(id), Some(record.clone()));
    record.result = Some(Ok("done".to_owned()));
    ledger.record_command(&record).unwrap();
    assert_eq!(ledger.command(id), Some(record));
}

#[test]
fn only_the_latest_commands_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let ids: Vec<CommandId> = (0..KEPT_COMMANDS as u64 + 3)
        .map(|n| CommandId::mint(Timestamp::from_millis(NOW.as_millis() + n), 1))
        .collect();
    for id in &ids {
        let path = ledger.command_path(*id);
        let record = CommandRecord {
            id: *id,
            command: CommandKind::Cleanup,
            begun_at: NOW,
            result: None,
        };
        std::fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
    }
    ledger.load();
    assert_eq!(ledger.command(ids[2]), None);
    assert!(ledger.command(ids[3]).is_some());
}
