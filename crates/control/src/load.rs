//! Reads the whole fleet from the store, at one revision.
//!
//! Owns nothing. What can fail: the store, and a record that this version cannot read; then nothing is
//! started, so that nothing is decided on half a picture.

use std::sync::Arc;

use hostler_fleet::{Change, State};
use hostler_model::Event;
use hostler_store::{Page, Revision, Store, StoreError};

use crate::{StartError, records};

/// How often a listing starts over because its revision was forgotten meanwhile.
const TRIES: usize = 8;

/// The fleet as the store has it.
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) revision: Revision,
}

pub(crate) async fn load(store: &dyn Store) -> Result<Loaded, StartError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match read_all(store).await {
            Err(StartError::Store(StoreError::Compacted { .. })) if tries < TRIES => {}
            outcome => return outcome,
        }
    }
}

async fn read_all(store: &dyn Store) -> Result<Loaded, StartError> {
    let mut changes = Vec::new();
    let mut at = None;
    for prefix in records::PREFIXES {
        let mut after = None;
        loop {
            let page = Page {
                after: after.take(),
                limit: 0,
                at,
            };
            let listing = store.list(prefix, page).await?;
            at = Some(listing.revision);
            for entry in &listing.entries {
                changes.push(records::read(entry).map_err(|source| StartError::Record {
                    key: entry.key.clone(),
                    source,
                })?);
            }
            match listing.entries.last() {
                Some(last) if listing.more => after = Some(last.key.clone()),
                _ => break,
            }
        }
    }
    Ok(Loaded {
        events: events(&changes),
        revision: at.unwrap_or_default(),
        state: State::from_changes(&changes),
    })
}

fn events(changes: &[Change]) -> Vec<Arc<Event>> {
    let event = |change: &Change| match change {
        Change::Append(event) => Some(Arc::clone(event)),
        _ => None,
    };
    changes.iter().filter_map(event).collect()
}
