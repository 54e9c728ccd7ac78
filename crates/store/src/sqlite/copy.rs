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
        end_when(&mut connection, is_over).map_err(unavailable)?;
        schema::copy_to(&connection, &to).map_err(unavailable)
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
        let copy = |name: &str| schema::copy_to(&connection, &folder.path().join(name));
        copy("first").unwrap();
        drop(waiting);
        copy("second").unwrap_err();
        assert!(!folder.path().join("second").exists());
    }
}
