//! The state of a project by its services. Pure.
//!
//! ```text
//!   no container was ever started                                    Prepared
//!   something runs, nothing has failed, nothing is missing           Running
//!   something has failed, or nothing runs, or a start broke off      Exited
//! ```
//!
//! A service that has ended with 0 has done its work and is no failure. A project of which a part has failed counts as
//! ended, though the rest runs on: the agent starts it again by its policy, which brings back only what has ended.

use std::time::Duration;

use hostler_model::{Exit, Part, PartState, Timestamp};

use crate::FoundState;
use crate::container::starts::History;

/// A container of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// The engine's id.
    pub(super) container: String,
    pub(super) service: String,
    pub(super) number: u32,
    pub(super) state: PieceState,
    /// Why the engine could not start it, in its own words.
    pub(super) problem: String,
    pub(super) ports: Vec<u16>,
    pub(super) program: String,
    pub(super) stop_signal: String,
    pub(super) grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceState {
    /// Never started.
    Created,
    Alive {
        since: Timestamp,
        is_unhealthy: bool,
    },
    Ended {
        since: Timestamp,
        exit: Exit,
        at: Timestamp,
    },
}

/// How a project stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: FoundState,
    pub(super) runs: u32,
    /// A part has failed and another runs.
    pub(super) is_partial: bool,
}

impl Piece {
    pub(super) const fn is_alive(&self) -> bool {
        matches!(self.state, PieceState::Alive { .. })
    }

    pub(super) const fn failure(&self) -> Option<(Exit, Timestamp)> {
        match self.state {
            PieceState::Ended { exit, at, .. } if !exit.is_success() => Some((exit, at)),
            _ => None,
        }
    }

    const fn since(&self) -> Option<Timestamp> {
        match self.state {
            PieceState::Created => None,
            PieceState::Alive { since, .. } | PieceState::Ended { since, .. } => Some(since),
        }
    }
}

/// How the project stands by its containers, the services that are to have one, and when its runs began.
pub(super) fn standing<'a>(
    pieces: &[Piece],
    wanted: impl Iterator<Item = &'a str>,
    history: &History,
) -> Standing {
    let of = |state, runs| Standing {
        state,
        runs,
        is_partial: false,
    };
    let Some(last_start) = pieces.iter().filter_map(Piece::since).max() else {
        // Containers that are there and never ran tell that no run was carried out.
        let gone = history.starts.last().filter(|_| pieces.is_empty());
        return gone.map_or_else(
            || of(FoundState::Prepared, 0),
            |last| {
                let (exit, at) = (Exit::Unknown, last.at);
                of(FoundState::Exited { exit, at }, last.run)
            },
        );
    };
    let last = history.last_until(last_start);
    // What was started once counts as one run, also when the record of it is lost.
    let runs = last.map_or(1, |start| start.run);
    let is_started = |service: &str| {
        let mut of = pieces.iter().filter(|piece| piece.service == service);
        of.any(|piece| piece.state != PieceState::Created)
    };
    let mut wanted = wanted;
    let is_whole = wanted.all(is_started);
    let is_alive = pieces.iter().any(Piece::is_alive);
    // The first failure is the cause of what came after it.
    let failures = pieces.iter().filter_map(Piece::failure);
    let failure = failures.min_by_key(|(_, at)| *at);
    let state = match (failure, is_alive) {
        (Some((exit, at)), true) => FoundState::Exited { exit, at },
        (None, true) if !is_whole => FoundState::Exited {
            exit: Exit::Unknown,
            at: last_start,
        },
        (None, true) => FoundState::Running {
            since: last.map_or(last_start, |start| start.at),
        },
        (failure, false) => {
            let ends = pieces.iter().filter_map(|piece| match piece.state {
                PieceState::Ended { at, .. } => Some(at),
                _ => None,
            });
            let exit = match failure {
                Some((exit, _)) => exit,
                None if is_whole => Exit::Code(0),
                None => Exit::Unknown,
            };
            let at = ends.max().unwrap_or(last_start);
            FoundState::Exited { exit, at }
        }
    };
    Standing {
        state,
        runs,
        is_partial: failure.is_some() && is_alive,
    }
}

/// The parts for people, services without any container too.
pub(super) fn parts<'a>(pieces: &[Piece], wanted: impl Iterator<Item = &'a str>) -> Vec<Part> {
    let mut parts: Vec<Part> = pieces
        .iter()
        .map(|piece| {
            let (state, exit) = match piece.state {
                PieceState::Created => (PartState::Waiting, None),
                PieceState::Alive {
                    is_unhealthy: true, ..
                } => (PartState::Unhealthy, None),
                PieceState::Alive { .. } => (PartState::Running, None),
                PieceState::Ended { exit, .. } => (PartState::Exited, Some(exit)),
            };
            let name = name_of(piece, pieces);
            Part { name, state, exit }
        })
        .collect();
    for service in wanted.filter(|it| pieces.iter().all(|piece| piece.service != *it)) {
        parts.push(Part {
            name: service.to_owned(),
            state: PartState::Waiting,
            exit: None,
        });
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    parts
}

/// The service, with a number only where it has several containers.
pub(super) fn name_of(piece: &Piece, pieces: &[Piece]) -> String {
    let same = pieces.iter().filter(|it| it.service == piece.service);
    if same.count() > 1 {
        format!("{}-{}", piece.service, piece.number)
    } else {
        piece.service.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::starts::Start;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn piece(service: &str, state: PieceState) -> Piece {
        Piece {
            container: service.to_owned(),
            service: service.to_owned(),
            number: 1,
            state,
            problem: String::new(),
            ports: Vec::new(),
            program: String::new(),
            stop_signal: String::new(),
            grace: Duration::ZERO,
        }
    }

    fn alive(service: &str, since: u64) -> Piece {
        let since = at(since);
        piece(
            service,
            PieceState::Alive {
                since,
                is_unhealthy: false,
            },
        )
    }

    fn ended(service: &str, code: i32, end: u64) -> Piece {
        piece(
            service,
            PieceState::Ended {
                since: at(100),
                exit: Exit::Code(code),
                at: at(end),
            },
        )
    }

    fn history(starts: &[(u32, u64)]) -> History {
        let start = |&(run, millis): &(u32, u64)| Start {
            run,
            at: at(millis),
            boot_id: String::new(),
        };
        History {
            starts: starts.iter().map(start).collect(),
        }
    }

    fn stands(pieces: &[Piece], starts: &[(u32, u64)]) -> (FoundState, u32, bool) {
        let standing = standing(pieces, ["db", "web"].into_iter(), &history(starts));
        (standing.state, standing.runs, standing.is_partial)
    }

    fn exited(exit: Exit, millis: u64) -> FoundState {
        FoundState::Exited {
            exit,
            at: at(millis),
        }
    }

    #[test]
    fn a_project_runs_while_all_that_should_run_does() {
        let running = FoundState::Running { since: at(50) };
        let both = [alive("db", 100), alive("web", 110)];
        assert_eq!(stands(&both, &[(1, 50)]), (running.clone(), 1, false));
        let once = [ended("db", 0, 120), alive("web", 110)];
        assert_eq!(stands(&once, &[(1, 50)]), (running, 1, false));
        let lost = stands(&both, &[]);
        assert_eq!(lost, (FoundState::Running { since: at(110) }, 1, false));
    }

    #[test]
    fn a_part_that_failed_ends_the_project_though_the_rest_runs() {
        let pieces = [ended("db", 3, 120), alive("web", 110)];
        let expected = (exited(Exit::Code(3), 120), 1, true);
        assert_eq!(stands(&pieces, &[(1, 50)]), expected);
        let all = [ended("db", 3, 120), ended("web", 7, 90)];
        let expected = (exited(Exit::Code(7), 120), 1, false);
        assert_eq!(stands(&all, &[(1, 50)]), expected, "the first is the cause");
        let done = [ended("db", 0, 120), ended("web", 0, 130)];
        let expected = (exited(Exit::Code(0), 130), 1, false);
        assert_eq!(stands(&done, &[(1, 50)]), expected);
    }

    #[test]
    fn a_start_that_broke_off_is_no_run_that_goes_on() {
        let half = [alive("db", 100), piece("web", PieceState::Created)];
        let expected = (exited(Exit::Unknown, 100), 1, false);
        assert_eq!(stands(&half, &[(1, 50)]), expected);
        assert_eq!(stands(&half[..1], &[(1, 50)]), expected);
        let made = [piece("web", PieceState::Created)];
        assert_eq!(
            stands(&made, &[(1, 50)]),
            (FoundState::Prepared, 0, false),
            "nothing of it was carried out"
        );
        assert_eq!(stands(&[], &[]), (FoundState::Prepared, 0, false));
        let removed = (exited(Exit::Unknown, 60), 2, false);
        assert_eq!(stands(&[], &[(1, 50), (2, 60)]), removed);
    }

    #[test]
    fn a_run_is_told_by_the_latest_start_that_was_carried_out() {
        let pieces = [alive("db", 100), alive("web", 210)];
        let starts = [(1, 50), (2, 200), (3, 300)];
        let running = FoundState::Running { since: at(200) };
        assert_eq!(stands(&pieces, &starts), (running, 2, false));
    }

    #[test]
    fn every_service_is_a_part_and_several_containers_have_numbers() {
        let mut second = alive("web", 100);
        second.number = 2;
        let pieces = [alive("web", 100), second, ended("job", 1, 120)];
        let parts = parts(&pieces, ["db", "job", "web"].into_iter());
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        assert_eq!(
            parts,
            [
                "db: waiting",
                "job: exit code 1",
                "web-1: running",
                "web-2: running"
            ]
        );
    }
}
