//! What a round did, in lines for people.

use std::fmt::Write as _;
use std::time::Duration;

use hostler_model::Bytes;
use hostler_runtime::LeftoverKind;

use super::sorting::{Item, What};
use crate::headroom::Share;

/// How long the words may become with what goes, and with what stays: they are to fit into one message.
const MOST_BYTES: [usize; 2] = [32 * 1024, 48 * 1024];
/// The longest name and the longest sentence of one thing.
const LONGEST: usize = 200;

/// A round, for people.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) is_dry_run: bool,
    /// Each disk by a place on it, and how full it was.
    pub(super) disks: Vec<(String, Option<Share>)>,
    pub(super) gone: Vec<(Item, String)>,
    pub(super) stays: Vec<(Item, String)>,
    /// Drivers that could not be asked, and why.
    pub(super) silent: Vec<String>,
    /// What there was no time for.
    pub(super) left: usize,
}

impl Report {
    /// The summary first.
    pub(super) fn text(&self) -> String {
        let freed = self.gone.iter().map(|(item, _)| item.bytes).sum();
        let verb = if self.is_dry_run {
            "would delete"
        } else {
            "deleted"
        };
        let mut text = format!(
            "{verb} {} of {} things: about {}",
            self.gone.len(),
            self.gone.len() + self.stays.len() + self.left,
            Bytes(freed).rough(),
        );
        for (place, share) in &self.disks {
            let full = share.map_or_else(
                || "cannot be looked at".to_owned(),
                |it| {
                    format!(
                        "{} % of {} in use",
                        it.percent_used(),
                        Bytes(it.total).rough()
                    )
                },
            );
            let _ = write!(text, "\ndisk of {place}: {full}");
        }
        for problem in &self.silent {
            let _ = write!(text, "\nnot looked at: {problem}");
        }
        if self.left > 0 {
            let _ = write!(text, "\n{} more wait for the next round", self.left);
        }
        let word = if self.is_dry_run { "goes " } else { "gone " };
        lines(&mut text, (word, MOST_BYTES[0]), &self.gone);
        lines(&mut text, ("stays", MOST_BYTES[1]), &self.stays);
        text
    }
}

fn lines(text: &mut String, (word, most): (&str, usize), items: &[(Item, String)]) {
    for (at, (item, why)) in items.iter().enumerate() {
        if text.len() > most {
            let _ = write!(text, "\n{word}  and {} more", items.len() - at);
            return;
        }
        let why = &why[..why.floor_char_boundary(LONGEST)];
        let (name, size) = (name(&item.what), size(item.bytes));
        let _ = write!(text, "\n{word}  {name}  {size}  {why}");
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        bytes => Bytes(bytes).rough(),
    }
}

/// Such as `image busybox:1.36` or `data of workload …`.
pub(super) fn name(what: &What) -> String {
    match what {
        What::Finished { unit, kind } => format!("finished {kind} {unit}"),
        What::Leftover { driver, kind, name } => {
            let name = &name[..name.floor_char_boundary(LONGEST)];
            match kind {
                LeftoverKind::Data {
                    workload: Some(workload),
                    ..
                } => format!("{driver} data {name} of workload {workload}"),
                LeftoverKind::Volume { workload } | LeftoverKind::SharedVolume { workload } => {
                    format!("volume {name} of workload {workload}")
                }
                LeftoverKind::Data { .. } | LeftoverKind::Image | LeftoverKind::Debris => {
                    format!("{driver} {} {name}", kind.as_str())
                }
            }
        }
    }
}

/// A span in its largest whole unit.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use hostler_model::Timestamp;
    use hostler_model::spec::Kind;

    use super::*;

    fn image(name: &str) -> Item {
        Item {
            what: What::Leftover {
                driver: Kind::Container,
                kind: LeftoverKind::Image,
                name: name.to_owned(),
            },
            bytes: 5 << 20,
            made_at: Timestamp::from_millis(0),
            used_at: Timestamp::from_millis(0),
            needed: None,
        }
    }

    #[test]
    fn a_round_is_told_with_every_thing_and_its_reason() {
        let report = Report {
            is_dry_run: true,
            disks: vec![(
                "/data".to_owned(),
                Some(Share {
                    free: 5,
                    total: 100,
                }),
            )],
            gone: vec![(image("busybox:1"), "nothing needs it".to_owned())],
            stays: vec![(image("web:2"), "a container uses it".to_owned())],
            silent: vec!["the compose driver does not answer".to_owned()],
            left: 0,
        };
        assert_eq!(
            report.text(),
            "would delete 1 of 2 things: about 5MiB\n\
             disk of /data: 95 % of 100B in use\n\
             not looked at: the compose driver does not answer\n\
             goes   container image busybox:1  5MiB  nothing needs it\n\
             stays  container image web:2  5MiB  a container uses it"
        );
    }

    #[test]
    fn however_much_there_is_the_words_fit_into_one_message() {
        let long = "ü".repeat(2000);
        let many = |count| vec![(image(&long), long.clone()); count];
        let report = Report {
            gone: many(5000),
            stays: many(5000),
            ..Report::default()
        };
        let text = report.text();
        assert!(
            text.len() < hostler_wire::session::MAX_MESSAGE_BYTES - 8192,
            "{}",
            text.len()
        );
        assert_eq!(text.matches(" more").count(), 2);
    }

    #[test]
    fn spans_are_told_in_one_unit() {
        let of = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(
            [of(5), of(90), of(7200), of(259_200)],
            ["5 s", "1 min", "2 h", "3 d"]
        );
    }
}
