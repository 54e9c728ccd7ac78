//! A copy of the store, made by a reader of its own. It breaks off when nobody waits for it any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::{open, schema};
use crate::StoreError;

/// After how many steps of SQLite's machine it is looked whether somebody still waits.
const STEPS: i32 = 10_000;

/// Says so to the copy when it is dropped.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Copies the store at `from`; durable when this returns.
pub(super) async fn copy(from: PathBuf, to: PathBuf) -> Result<(), StoreError> {
    let is_over = Arc::new(AtomicBool::new(false));
    let _waiting = Waiting(Arc::clone(&is_over));
    let copying = tokio::task::spawn_blocking(move || {
        let mut connection = open::read_connection(&from).map_err(unavailable)?;
        end_when(&mut connection, Arc::clone(&is_over)).map_err(unavailable)?;
        // No statement looks at it while the copy is synced.
        let is_over = || is_over.load(Ordering::Relaxed);
        schema::copy_to(&connection, &to, is_over).map_err(unavailable)
    });
    copying.await.map_err(unavailable)?
}

/// Statements of the connection break off once the flag is set.
fn end_when(connection: &mut Connection, is_over: Arc<AtomicBool>) -> rusqlite::Result<()> {
    connection.progress_handler(STEPS, Some(move || is_over.load(Ordering::Relaxed)))
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_nobody_waits_for_breaks_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(folder.path().join("store")).unwrap();
        let fill = "CREATE TABLE kv (value); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                    LIMIT 100000) INSERT INTO kv SELECT i FROM n;";
        connection.execute_batch(fill).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let waiting = Waiting(Arc::clone(&is_over));
        end_when(&mut connection, is_over).unwrap();
        let copy = |name: &str| schema::copy_to(&connection, &folder.path().join(name), || false);
        copy("first").unwrap();
        drop(waiting);
        copy("second").unwrap_err();
        for name in ["first.partial", "second", "second.partial"] {
            assert!(!folder.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_copy_that_is_over_when_it_is_whole_gets_no_name_and_leaves_the_next_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("store")).unwrap();
        connection.execute_batch("CREATE TABLE kv (value)").unwrap();
        let (to, partial) = (folder.path().join("to"), folder.path().join("to.partial"));
        schema::copy_to(&connection, &to, || true).unwrap_err();
        assert!(!to.exists() && !partial.exists());
        let next = || {
            std::fs::remove_file(&partial).unwrap();
            std::fs::write(&partial, "of the next").unwrap();
            false
        };
        schema::copy_to(&connection, &to, next).unwrap_err();
        assert!(!to.exists());
        assert_eq!(std::fs::read(&partial).unwrap(), b"of the next");
    }
}
