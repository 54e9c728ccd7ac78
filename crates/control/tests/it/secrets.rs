//! Secrets through the control plane: sealed before they are recorded, opened for nodes alone, resealed under a new
//! key, and nowhere in clear on the disk.

use std::path::Path;
use std::sync::Arc;

use hostler_control::fleet::{Expect, Verb};
use hostler_control::{Control, ControlConfig, Parts, Resealing};
use hostler_kit::sealed::{Clear, Keyring};
use hostler_kit::{Clock, SystemClock, SystemEntropy, Tasks};
use hostler_model::spec::SecretUse;
use hostler_model::{Code, Refusal};
use hostler_store::{SqliteStore, Write};

use crate::world::{World, apply, spec, stop, user};

const CANARY: &str = "canary-7f3d1c2b9a";

fn clear(text: &str) -> Clear {
    Clear::new(text.as_bytes().to_vec())
}

fn with(keyring: Keyring) -> ControlConfig {
    ControlConfig {
        secrets: Some(Arc::new(keyring)),
        ..ControlConfig::default()
    }
}

async fn set(control: &Control, name: &str, value: &str) -> Result<u64, Refusal> {
    let value = clear(value);
    control.set_secret(user(), name, &value, Expect::Any).await
}

fn given(control: &Control, name: &str) -> String {
    let given = control.give_secret(name).unwrap();
    String::from_utf8(given.value.reveal().to_vec()).unwrap()
}

/// A control plane as `hostler server` makes it, in that directory.
async fn serve(dir: &Path) -> Control {
    let keyring = Keyring::open(&dir.join("secrets.key"), None, &SystemEntropy).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let parts = Parts {
        store: Arc::new(SqliteStore::open(dir, Arc::clone(&clock)).unwrap()),
        clock,
        entropy: Arc::new(SystemEntropy),
        tasks: Tasks::new(),
    };
    Control::start(with(keyring), parts).await.unwrap()
}

/// The files below the directory that hold the words, in clear, in base64 or in hex.
fn holding(dir: &Path, words: &str) -> Vec<String> {
    let hex: String = words.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, words));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|it| it == part);
        if holds(words.as_bytes()) || holds(hex.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn a_value_goes_around_through_sqlite_and_lies_nowhere_in_clear() {
    let home = tempfile::tempdir().unwrap();
    let control = serve(home.path()).await;
    assert_eq!(set(&control, "db", CANARY).await.unwrap(), 1);
    assert_eq!(given(&control, "db"), CANARY);
    let mut web = spec("web", 1, 100);
    web.secrets = vec![SecretUse {
        name: "db".to_owned(),
        env: Some("DB".to_owned()),
        file: None,
        mode: None,
    }];
    apply(&control, web).await.unwrap();
    assert_eq!(
        set(&control, "db", &format!("{CANARY}-2")).await.unwrap(),
        2
    );
    let told = format!("{:?} {:?}", control.events(None, 100), &*control.view());
    assert!(told.contains("secret db was set to version 2"), "{told}");
    assert!(!told.contains(CANARY));
    assert_eq!(holding(home.path(), CANARY), Vec::<String>::new());
    stop(control).await;

    let control = serve(home.path()).await;
    assert_eq!(given(&control, "db"), format!("{CANARY}-2"));
    assert_eq!(holding(home.path(), CANARY), Vec::<String>::new());
    // The search would find it.
    std::fs::write(home.path().join("planted"), format!("x{CANARY}x")).unwrap();
    assert_eq!(holding(home.path(), CANARY).len(), 1);
    stop(control).await;
}

#[tokio::test]
async fn a_new_key_seals_everything_and_the_old_one_is_gone_from_the_disk() {
    let home = tempfile::tempdir().unwrap();
    let control = serve(home.path()).await;
    for number in 0..40 {
        set(
            &control,
            &format!("s{number}"),
            &format!("{CANARY} {number}"),
        )
        .await
        .unwrap();
    }
    let before = std::fs::read_to_string(home.path().join("secrets.key")).unwrap();
    let done = control.rekey(user()).await.unwrap();
    assert_eq!((done.count, done.unopened), (40, 0));
    let after = std::fs::read_to_string(home.path().join("secrets.key")).unwrap();
    let key = |text: &str| text.lines().nth(1).unwrap().to_owned();
    assert!(!after.contains(&key(&before)), "the old key is still there");
    assert_eq!(after.lines().count(), 2);
    for number in 0..40 {
        let value = given(&control, &format!("s{number}"));
        assert_eq!(value, format!("{CANARY} {number}"));
        assert_eq!(
            control
                .view()
                .secret(&format!("s{number}"))
                .unwrap()
                .version,
            1
        );
    }
    stop(control).await;
    let control = serve(home.path()).await;
    assert_eq!(given(&control, "s39"), format!("{CANARY} 39"));
    stop(control).await;
}

/// As after a kill between the two: the file has both keys, and some records the old one.
#[tokio::test]
async fn a_turn_of_keys_that_was_broken_off_is_finished_by_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let control = serve(home.path()).await;
    for number in 0..20 {
        set(&control, &format!("s{number}"), CANARY).await.unwrap();
    }
    stop(control).await;
    let path = home.path().join("secrets.key");
    let keyring = Keyring::open(&path, None, &SystemEntropy).unwrap();
    keyring.begin_turn(&SystemEntropy).unwrap();
    let primary = keyring.primary();
    drop(keyring);

    let control = serve(home.path()).await;
    let mut changes = control.watch_changes();
    let is_done = || {
        let view = control.view();
        let is_resealed = view.secrets().all(|it| it.sealed.key == primary);
        is_resealed && std::fs::read_to_string(&path).unwrap().lines().count() == 2
    };
    let finished = async {
        while !is_done() {
            // The file goes last, and tells nobody.
            let soon = std::time::Duration::from_millis(20);
            let _ = tokio::time::timeout(soon, changes.changed()).await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, finished).await.unwrap();
    for number in 0..20 {
        assert_eq!(given(&control, &format!("s{number}")), CANARY);
    }
    stop(control).await;
}

#[tokio::test]
async fn secrets_that_are_set_during_a_turn_of_keys_are_not_lost() {
    let home = tempfile::tempdir().unwrap();
    let control = serve(home.path()).await;
    for number in 0..16 {
        set(&control, &format!("s{number}"), "first").await.unwrap();
    }
    let setting = async {
        for round in 0..30 {
            let name = format!("s{}", round % 20);
            set(&control, &name, &format!("{CANARY} {round}"))
                .await
                .unwrap();
        }
    };
    let turning = async {
        for _ in 0..3 {
            control.rekey(user()).await.unwrap();
        }
    };
    tokio::join!(setting, turning);
    let done = control.rekey(user()).await.unwrap();
    assert_eq!(done.unopened, 0);
    for round in 10..30 {
        let value = given(&control, &format!("s{}", round % 20));
        assert_eq!(value, format!("{CANARY} {round}"));
    }
    stop(control).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn turns_of_keys_side_by_side_find_no_secret_that_cannot_be_opened() {
    let home = tempfile::tempdir().unwrap();
    let control = serve(home.path()).await;
    for number in 0..16 {
        set(&control, &format!("s{number}"), CANARY).await.unwrap();
    }
    for _ in 0..40 {
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        let turn = || {
            let control = control.clone();
            tokio::spawn(async move { control.rekey(user()).await })
        };
        let (one, other) = tokio::join!(turn(), turn());
        for done in [one, other] {
            assert_eq!(done.unwrap().unwrap().unopened, 0);
        }
    }
    for number in 0..16 {
        assert_eq!(given(&control, &format!("s{number}")), CANARY);
    }
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_moved_or_changed_in_the_store_does_not_open() {
    let world = World::new(1);
    let keyring = || Keyring::in_memory(&SystemEntropy);
    let control = Control::start(with(keyring()), world.parts())
        .await
        .unwrap();
    set(&control, "low", "nothing much").await.unwrap();
    set(&control, "high", CANARY).await.unwrap();
    let high = control.view().secret("high").cloned().unwrap();
    stop(control).await;
    let mut swapped = hostler_model::Secret::clone(&high);
    swapped.name = "low".to_owned();
    let put = Write::Put {
        key: "secrets/low".to_owned(),
        value: serde_json::to_vec(&swapped).unwrap().into(),
    };
    hostler_store::Store::commit(world.store.as_ref(), vec![put], Vec::new())
        .await
        .unwrap();
    // Another key as well: what is sealed with a lost one is named, left alone, and can be set again.
    let control = Control::start(with(keyring()), world.parts())
        .await
        .unwrap();
    let refusal = control.give_secret("low").unwrap_err();
    assert_eq!(refusal.code, Code::SecretsLocked);
    assert!(!refusal.to_string().contains(CANARY));
    let done = control.rekey(user()).await.unwrap();
    assert_eq!(
        done,
        Resealing {
            count: 0,
            unopened: 2
        }
    );
    set(&control, "high", "again").await.unwrap();
    assert_eq!(given(&control, "high"), "again");
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_key_does_not_open_a_record_under_another_name() {
    let world = World::new(2);
    let keyring = Arc::new(Keyring::in_memory(&SystemEntropy));
    let config = ControlConfig {
        secrets: Some(Arc::clone(&keyring)),
        ..ControlConfig::default()
    };
    let control = Control::start(config, world.parts()).await.unwrap();
    set(&control, "low", "nothing much").await.unwrap();
    set(&control, "high", CANARY).await.unwrap();
    let high = control.view().secret("high").cloned().unwrap();
    let verb = Verb::PutSecret {
        name: "low".to_owned(),
        version: 2,
        sealed: high.sealed.clone(),
        expect: Expect::Any,
    };
    control.submit(user(), verb).await.unwrap();
    let refusal = control.give_secret("low").unwrap_err();
    assert_eq!(refusal.code, Code::SecretsLocked);
    assert_eq!(given(&control, "high"), CANARY);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_key_nothing_is_sealed_and_everything_else_works() {
    let world = World::new(3);
    let control = world.start().await;
    let refusal = set(&control, "db", CANARY).await.unwrap_err();
    assert_eq!(refusal.code, Code::SecretsLocked);
    apply(&control, spec("web", 1, 100)).await.unwrap();
    assert_eq!(control.view().secrets().len(), 0);
    let refusal = control.give_secret("db").unwrap_err();
    assert_eq!(refusal.code, Code::SecretNotFound);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_fits_into_no_message_is_refused() {
    let world = World::new(4);
    let config = with(Keyring::in_memory(&SystemEntropy));
    let control = Control::start(config, world.parts()).await.unwrap();
    let refusal = set(&control, "db", &"x".repeat((32 << 10) + 1)).await;
    assert_eq!(refusal.unwrap_err().code, Code::BodyTooLarge);
    let most = "x".repeat(32 << 10);
    set(&control, "db", &most).await.unwrap();
    assert_eq!(given(&control, "db"), most);
    stop(control).await;
}
