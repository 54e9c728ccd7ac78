//! Opening: what is kept, what is refused, and what is done before a migration.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::SystemClock;
use hostler_store::contract::put;
use hostler_store::{OpenError, Page, Replacement, SqliteOptions, SqliteStore, Store, StoreError};
use tempfile::TempDir;

use crate::child::{longer_schema, open};

fn refusal(directory: &Path, options: SqliteOptions) -> OpenError {
    let opened = SqliteStore::open_with(directory, Arc::new(SystemClock::new()), options);
    let Err(error) = opened else {
        panic!("it must not open")
    };
    assert!(!error.advice().is_empty(), "{error} comes with advice");
    error
}

fn longer() -> SqliteOptions {
    SqliteOptions {
        migrations: longer_schema(),
        ..SqliteOptions::default()
    }
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let entry = store.get(key).await.expect("a key can be read")?;
    Some(String::from_utf8(entry.value.to_vec()).expect("tests write text"))
}

#[tokio::test]
async fn entries_revision_and_lease_numbers_outlive_the_process() {
    let directory = TempDir::new().expect("a directory");
    let ttl = Duration::from_secs(60);
    let store = open(directory.path());
    let token = store.lease("leader", ttl, None).await.expect("it is free");
    let revision = store
        .commit(vec![put("a", "1")], Vec::new())
        .await
        .expect("it happens");
    drop(store);
    let log = std::fs::metadata(directory.path().join("hostler.db-wal"));
    assert!(log.map_or(0, |log| log.len()) == 0, "closing folds the log");

    let store = open(directory.path());
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
    let next = store
        .lease("leader", ttl, None)
        .await
        .expect("its holder is gone");
    assert!(next.number > token.number, "numbers are never given twice");
    let forgotten = store.watch("", 0).await.err();
    let oldest = match forgotten {
        Some(StoreError::Compacted { oldest }) => oldest,
        other => panic!("history does not outlive the process: {other:?}"),
    };
    assert_eq!(oldest, revision);
    let second = store
        .commit(vec![put("a", "2")], Vec::new())
        .await
        .expect("it happens");
    assert_eq!(second, revision + 1);
}

#[tokio::test]
async fn the_directory_is_made_for_its_owner_alone() {
    let root = TempDir::new().expect("a directory");
    let directory = root.path().join("deep/data");
    let store = open(&directory);
    store
        .commit(vec![put("a", "1")], Vec::new())
        .await
        .expect("it happens");
    let mode = |path: &Path| {
        std::fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(&directory), 0o700);
    for file in ["hostler.db", "hostler.db-wal", "store.lock"] {
        assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    let error = refusal(directory.path(), SqliteOptions::default());
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    drop(store);
    open(directory.path());
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_refused() {
    let root = TempDir::new().expect("a directory");
    let file = root.path().join("file");
    std::fs::write(&file, "in the way").expect("a file");
    for directory in [file.clone(), file.join("below"), "/proc/hostler".into()] {
        let error = refusal(&directory, SqliteOptions::default());
        assert!(
            matches!(error, OpenError::DirectoryUnwritable { .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_damaged_file_and_a_foreign_one_are_refused_and_left_alone() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("hostler.db");
    let noise = "this is no database, whatever its name says. ".repeat(100);
    std::fs::write(&path, &noise).expect("a file");
    let error = refusal(directory.path(), SqliteOptions::default());
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), noise);

    std::fs::remove_file(&path).expect("ours to remove");
    let foreign = rusqlite::Connection::open(&path).expect("a database");
    foreign
        .execute_batch("CREATE TABLE theirs (n)")
        .expect("a table");
    drop(foreign);
    let before = std::fs::read(&path).expect("it is there");
    let error = refusal(directory.path(), SqliteOptions::default());
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert_eq!(std::fs::read(&path).expect("it is there"), before);
}

#[tokio::test]
async fn a_migration_keeps_the_data_and_a_backup_of_the_former_version() {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    store
        .commit(vec![put("a", "1")], Vec::new())
        .await
        .expect("it happens");
    drop(store);
    let migrate = || {
        let clock = Arc::new(SystemClock::new());
        SqliteStore::open_with(directory.path(), clock, longer()).expect("it migrates")
    };
    let migrated = migrate();
    assert_eq!(value(&migrated, "a").await.as_deref(), Some("1"));
    migrated
        .commit(vec![put("a", "2")], Vec::new())
        .await
        .expect("it happens");
    drop(migrated);
    drop(migrate());

    let error = refusal(directory.path(), SqliteOptions::default());
    assert!(
        matches!(error, OpenError::NewerVersion { found: 2, known: 1 }),
        "{error:?}"
    );

    let restored = TempDir::new().expect("a directory");
    let backup = directory.path().join("hostler.db.v1.backup");
    std::fs::copy(backup, restored.path().join("hostler.db")).expect("the backup is there");
    let store = open(restored.path());
    assert_eq!(
        value(&store, "a").await.as_deref(),
        Some("1"),
        "as it was before the migration"
    );
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    store
        .commit(vec![put("a", "1")], Vec::new())
        .await
        .expect("it happens");
    drop(store);
    let mut steps = SqliteOptions::default().migrations.to_vec();
    steps.push("CREATE TABLE half (n INTEGER) STRICT; DELETE FROM kv; SELECT nonsense FROM kv;");
    let broken = SqliteOptions {
        migrations: steps.leak(),
        ..SqliteOptions::default()
    };
    let error = refusal(directory.path(), broken);
    assert!(
        matches!(error, OpenError::Migration { to: 2, .. }),
        "{error:?}"
    );
    let store = open(directory.path());
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_backup_is_a_store_of_its_own() {
    let (directory, other) = (
        TempDir::new().expect("one"),
        TempDir::new().expect("another"),
    );
    let store = open(directory.path());
    store
        .commit(vec![put("a", "1")], Vec::new())
        .await
        .expect("it happens");
    let path = other.path().join("hostler.db");
    store.backup_to(&path).await.expect("the copy is made");
    let again = store.backup_to(&path).await;
    assert!(
        matches!(again, Err(StoreError::Unavailable(_))),
        "nothing is overwritten"
    );
    store
        .commit(vec![put("a", "2")], Vec::new())
        .await
        .expect("it happens");
    let copy = open(other.path());
    assert_eq!(value(&copy, "a").await.as_deref(), Some("1"));
    let listing = copy.list("", Page::default()).await.expect("a page");
    assert_eq!(listing.revision, 1, "the revision goes with the copy");
}

#[tokio::test]
async fn a_copy_takes_the_place_of_a_store_which_steps_aside() {
    let directory = TempDir::new().expect("a directory");
    let (data, staged) = (
        directory.path().join("data"),
        directory.path().join("staged"),
    );
    std::fs::create_dir(&staged).expect("a directory");
    let store = open(&data);
    store
        .commit(vec![put("a", "old")], Vec::new())
        .await
        .expect("it happens");
    let copy = staged.join("hostler.db");
    store.backup_to(&copy).await.expect("the copy is made");
    let mode = std::fs::metadata(&copy)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "as private as the store");
    assert_eq!(hostler_store::examine(&copy).expect("it is whole"), 1);
    store
        .commit(vec![put("a", "new")], Vec::new())
        .await
        .expect("it happens");
    assert!(matches!(
        Replacement::begin(&data).err(),
        Some(OpenError::InUse { .. })
    ));
    drop(store);

    let replacement = Replacement::begin(&data).expect("nobody uses it");
    assert!(replacement.is_occupied());
    let aside = data.join("aside");
    std::fs::write(data.join("hostler.db-wal"), "of the old one").expect("it is written");
    replacement.put(&staged, &[], &aside).expect("it is put");
    assert_eq!(value(&open(&data), "a").await.as_deref(), Some("old"));
    assert!(
        aside.join("hostler.db-wal").exists(),
        "the log went with its database"
    );
    std::fs::remove_file(aside.join("hostler.db-wal")).expect("it is removed");
    assert_eq!(value(&open(&aside), "a").await.as_deref(), Some("new"));
}

#[test]
fn a_store_that_is_half_replaced_does_not_open() {
    let directory = TempDir::new().expect("a directory");
    drop(open(directory.path()));
    std::fs::write(directory.path().join("store.restoring"), "aside").expect("it is written");
    let refused = refusal(directory.path(), SqliteOptions::default());
    assert!(
        matches!(refused, OpenError::HalfRestored { .. }),
        "{refused}"
    );
    let staged = TempDir::new().expect("a directory");
    drop(open(staged.path()));
    let again = Replacement::begin(directory.path()).expect("it can be done again");
    let aside = directory.path().join("aside");
    again.put(staged.path(), &[], &aside).expect("it is put");
    drop(open(directory.path()));
}

#[test]
fn what_is_no_whole_store_of_ours_is_told_before_it_is_used() {
    let directory = TempDir::new().expect("a directory");
    drop(open(directory.path()));
    let path = directory.path().join("hostler.db");
    assert_eq!(hostler_store::examine(&path).expect("it is whole"), 0);
    let mut bytes = std::fs::read(&path).expect("it can be read");
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&path, &bytes).expect("it is written");
    assert!(hostler_store::examine(&path).is_err(), "half of it");
    std::fs::write(&path, "").expect("it is written");
    assert!(matches!(
        hostler_store::examine(&path),
        Err(OpenError::Foreign { .. })
    ));
}
