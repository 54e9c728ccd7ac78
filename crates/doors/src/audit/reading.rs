//! Reading the audit from afar: the newest lines that are wanted, a part of the files at a time.
//!
//! ```text
//!   the newest line ◄── from here back, until enough lines are found, or enough bytes are looked through ──► the page, and
//!                                                                                        where the next one goes on
//! ```
//!
//! It reads beside the threads that write, and off the threads of requests. What is no line is counted and passed over.

use std::io;
use std::path::Path;

use hostler_kit::{Backwards, Place};
use hostler_model::{Code, Refusal, Timestamp};
use hostler_wire::api::{AuditGap, AuditLine, AuditOutcome, AuditPage, AuditQuery, AuditRecord};

use super::{Audit, REQUESTS, STRANGERS};

/// Most bytes that one request looks through: well under a second of work.
const LOOKED_THROUGH: usize = 64 << 20;
/// So many lines in a row that are older than what is wanted end the search. A clock that was set back for a while
/// hides nothing behind fewer.
const OLDER: usize = 10_000;

/// What is looked for.
pub(crate) struct Wanted {
    pub(crate) limit: usize,
    pub(crate) before: Option<Place>,
    pub(crate) since: Option<Timestamp>,
    /// Names the rest.
    pub(crate) query: AuditQuery,
}

/// A search on its way back.
struct Search<'a> {
    wanted: &'a Wanted,
    page: AuditPage,
    bytes: usize,
    /// Lines in a row that are too old.
    older: usize,
}

impl Audit {
    /// The lines that are wanted. What was written down before this was asked is among them.
    ///
    /// # Errors
    /// `audit-missing` where there is none, `store-unavailable` if the disk fails.
    pub(crate) async fn read(&self, wanted: Wanted) -> Result<AuditPage, Refusal> {
        let Some(books) = &self.0 else {
            let sentence = "this server writes no audit";
            let advice = "ask the server that keeps the fleet's records";
            return Err(Refusal::new(Code::AuditMissing, sentence, advice));
        };
        let failed = |problem: String| {
            let sentence = format!("the audit cannot be read: {problem}");
            let advice = "look at `audit/` in the server's data directory, and at the server's log";
            Refusal::new(Code::StoreUnavailable, sentence, advice)
        };
        // It is never closed. Whoever waits does so in the time that a request has.
        let turn = books.turns.clone().acquire_owned().await;
        let turn = turn.map_err(|error| failed(error.to_string()))?;
        let lines = if wanted.query.strangers {
            &books.strangers
        } else {
            &books.requests
        };
        lines.flush().await;
        let dir = books.dir.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let found = look(&dir, &wanted);
            drop(turn);
            found
        });
        let found = looking.await.map_err(|error| failed(error.to_string()))?;
        found.map_err(|error| failed(error.to_string()))
    }
}

fn look(dir: &Path, wanted: &Wanted) -> io::Result<AuditPage> {
    let series = if wanted.query.strangers {
        STRANGERS
    } else {
        REQUESTS
    };
    let mut lines = Backwards::open(dir, series.name, wanted.before)?;
    let mut search = Search {
        wanted,
        page: AuditPage::default(),
        bytes: 0,
        older: 0,
    };
    while let Some((place, line)) = lines.line()? {
        search.bytes += line.len() + 1;
        search.take(&line);
        if search.older >= OLDER {
            break;
        }
        if search.page.lines.len() >= wanted.limit || search.bytes >= LOOKED_THROUGH {
            search.page.before = Some(place.to_string());
            break;
        }
    }
    search.page.lines.reverse();
    Ok(search.page)
}

impl Search<'_> {
    fn take(&mut self, line: &[u8]) {
        let read = serde_json::from_slice::<AuditLine>(line).ok();
        let read = read.and_then(|line| Some((Timestamp::parse(&line.at)?, line)));
        if let Some((at, line)) = read {
            let is_old = self.wanted.since.is_some_and(|since| at < since);
            self.older = if is_old { self.older + 1 } else { 0 };
            if !is_old && self.wanted.fits(&line) {
                self.page.lines.push(AuditRecord::Line(Box::new(line)));
            }
        } else if let Ok(gap) = serde_json::from_slice::<AuditGap>(line) {
            // It belongs to the line behind it, and anybody's lines may be missing.
            if self.older == 0 {
                self.page.lines.push(AuditRecord::Gap(gap));
            }
        } else if !line.is_empty() {
            self.page.unreadable += 1;
        }
    }
}

impl Wanted {
    fn fits(&self, line: &AuditLine) -> bool {
        let query = &self.query;
        let is_actor = |wanted: &String| {
            let (name, id) = (line.actor.name.as_ref(), line.actor.id.as_ref());
            *wanted == line.actor.kind || name == Some(wanted) || id == Some(wanted)
        };
        // Several workloads of one apply, or an agent and its replica.
        let is_thing = |wanted: &String| {
            let thing = line.thing.as_deref().unwrap_or_default();
            line.name.as_ref() == Some(wanted)
                || thing == wanted
                || thing.split([' ', '/']).any(|word| word == wanted)
        };
        query.actor.as_ref().is_none_or(is_actor)
            && query.thing.as_ref().is_none_or(is_thing)
            && query
                .outcome
                .is_none_or(|it: AuditOutcome| it == line.outcome)
            && query.door.as_ref().is_none_or(|door| *door == line.door)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGINNING: u64 = 1_759_856_899_560;

    fn written(seconds: u64, (kind, name): (&str, &str), (thing, outcome): (&str, &str)) -> String {
        let at = Timestamp::from_millis(BEGINNING + seconds * 1_000);
        format!(
            r#"{{"at":"{at}","actor":{{"kind":"{kind}","name":"{name}","id":"id-of-{name}"}},"door":"api","method":"POST","thing":"{thing}","outcome":"{outcome}","status":200}}"#
        )
    }

    fn wanted(query: AuditQuery) -> Wanted {
        Wanted {
            limit: query.limit.unwrap_or(100),
            before: query.before.as_ref().map(|text| text.parse().unwrap()),
            since: query.since.as_deref().and_then(Timestamp::parse),
            query,
        }
    }

    /// The things of the lines that are found, `+N` for a gap of so many.
    fn things(dir: &Path, query: AuditQuery) -> Vec<String> {
        let page = look(dir, &wanted(query)).unwrap();
        let told = page.lines.into_iter().map(|record| match record {
            AuditRecord::Line(line) => line.thing.unwrap_or_default(),
            AuditRecord::Gap(gap) => format!("+{}", gap.lost),
        });
        told.collect()
    }

    fn put(dir: &Path, name: &str, lines: &[String]) {
        std::fs::write(dir.join(name), lines.join("\n") + "\n").unwrap();
    }

    #[test]
    fn lines_are_found_by_who_what_how_and_when_and_gaps_stand_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (anna, box_1) = (("person", "anna"), ("node", "box"));
        let lines = [
            written(1, anna, ("web", "done")),
            "{\"lost\":3}".to_owned(),
            "half a li".to_owned(),
            written(2, box_1, ("", "done")),
            written(3, anna, ("db api", "refused")),
            "{\"lost\":1}".to_owned(),
            written(4, ("client", "acme"), ("a-1/r-2", "broken-off")),
        ];
        put(dir.path(), "requests-00000001.jsonl", &lines[..3]);
        put(dir.path(), "requests-00000002.jsonl", &lines[3..]);
        put(
            dir.path(),
            "strangers-00000001.jsonl",
            &[written(9, ("nobody", ""), ("x", "refused"))],
        );
        let page = look(dir.path(), &wanted(AuditQuery::default())).unwrap();
        assert_eq!((page.unreadable, page.before), (1, None));
        let text = |text: &str| Some(text.to_owned());
        let everything = AuditQuery::default;
        for (query, expected) in [
            (
                everything(),
                &["web", "+3", "", "db api", "+1", "a-1/r-2"][..],
            ),
            (
                AuditQuery {
                    actor: text("anna"),
                    ..everything()
                },
                &["web", "+3", "db api", "+1"],
            ),
            (
                AuditQuery {
                    actor: text("id-of-box"),
                    ..everything()
                },
                &["+3", "", "+1"],
            ),
            (
                AuditQuery {
                    actor: text("client"),
                    ..everything()
                },
                &["+3", "+1", "a-1/r-2"],
            ),
            (
                AuditQuery {
                    thing: text("api"),
                    ..everything()
                },
                &["+3", "db api", "+1"],
            ),
            (
                AuditQuery {
                    thing: text("r-2"),
                    ..everything()
                },
                &["+3", "+1", "a-1/r-2"],
            ),
            (
                AuditQuery {
                    outcome: Some(AuditOutcome::BrokenOff),
                    ..everything()
                },
                &["+3", "+1", "a-1/r-2"],
            ),
            (
                AuditQuery {
                    door: text("spot"),
                    ..everything()
                },
                &["+3", "+1"],
            ),
            (
                AuditQuery {
                    strangers: true,
                    ..everything()
                },
                &["x"],
            ),
            (
                AuditQuery {
                    since: text("2025-10-07T17:08:22.560Z"),
                    ..everything()
                },
                &["db api", "+1", "a-1/r-2"],
            ),
        ] {
            assert_eq!(things(dir.path(), query.clone()), expected, "{query:?}");
        }
    }

    #[test]
    fn what_ended_as_only_a_later_server_could_say_is_found_as_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let line = |thing: &str, outcome: &str| written(1, ("person", "anna"), (thing, outcome));
        let lines = [line("web", "done"), line("db", "postponed")];
        put(dir.path(), "requests-00000001.jsonl", &lines);
        let query = AuditQuery {
            outcome: Some(AuditOutcome::Unknown),
            ..AuditQuery::default()
        };
        assert_eq!(things(dir.path(), query), ["db"]);
    }

    #[test]
    fn pages_lead_to_each_other_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let line = |at: u64| written(at, ("person", "anna"), (&at.to_string(), "done"));
        put(
            dir.path(),
            "requests-00000001.jsonl",
            &[line(1), line(2), line(3)],
        );
        put(dir.path(), "requests-00000002.jsonl", &[line(4), line(5)]);
        let (mut before, mut found) = (None, Vec::new());
        loop {
            let query = AuditQuery {
                limit: Some(2),
                before,
                ..AuditQuery::default()
            };
            let page = look(dir.path(), &wanted(query.clone())).unwrap();
            found.push(things(dir.path(), query));
            before = page.before;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found, [vec!["4", "5"], vec!["2", "3"], vec!["1"]]);
    }

    #[test]
    fn a_clock_that_was_set_back_for_a_while_hides_nothing_and_old_lines_end_the_search() {
        let dir = tempfile::tempdir().unwrap();
        let line = |at: u64| written(at, ("person", "anna"), (&at.to_string(), "done"));
        let back = vec![line(1); OLDER - 1];
        let lines = [vec![line(100)], back, vec![line(101)]].concat();
        put(dir.path(), "requests-00000001.jsonl", &lines);
        let since = Timestamp::from_millis(BEGINNING + 50_000).to_string();
        let query = AuditQuery {
            since: Some(since),
            ..AuditQuery::default()
        };
        assert_eq!(things(dir.path(), query.clone()), ["100", "101"]);
        let long = [vec![line(100)], vec![line(1); OLDER], vec![line(101)]].concat();
        put(dir.path(), "requests-00000001.jsonl", &long);
        assert_eq!(things(dir.path(), query), ["101"]);
    }
}
