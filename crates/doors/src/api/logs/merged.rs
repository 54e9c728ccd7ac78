//! What several copies have written, merged by time and told to its end.

use std::pin::Pin;

use futures::stream::{self, Peekable};
use futures::{Stream, StreamExt as _};
use hostler_control::Control;
use hostler_model::{Code, Refusal, Timestamp};
use hostler_wire::api::LogLine;

use super::{Copy, Part, Records, convert, problem, trouble};
use crate::api::refuse::Failure;

/// What is left to be told: the earliest head of all copies is next.
pub(super) struct Merged {
    control: Control,
    copies: Vec<(Copy, Pin<Box<Peekable<Records>>>)>,
    notices: Vec<LogLine>,
    /// One copy's failure is the stream's; among several it is only told.
    is_alone: bool,
    is_over: bool,
}

impl Merged {
    /// Waits for the first word of each copy, so that what cannot be read at all is refused and not streamed.
    pub(super) async fn start(
        control: &Control,
        opened: Vec<(Copy, Records)>,
        mut failed: Vec<(Copy, Refusal)>,
    ) -> Result<Self, Failure> {
        let is_alone = opened.len() + failed.len() == 1;
        let mut copies = Vec::with_capacity(opened.len());
        for (copy, records) in opened {
            let mut records = Box::pin(records.peekable());
            match records.as_mut().peek().await {
                Some(Err(refusal)) => failed.push((copy, refusal.clone())),
                Some(Ok(_)) | None => copies.push((copy, records)),
            }
        }
        if copies.is_empty() {
            let refusal = failed
                .into_iter()
                .next()
                .map_or_else(no_copy, |(_, refusal)| refusal);
            return Err(Failure(refusal));
        }
        let notices = failed
            .iter()
            .map(|(copy, refusal)| trouble(control, copy, refusal))
            .collect();
        Ok(Self {
            control: control.clone(),
            copies,
            notices,
            is_alone,
            is_over: false,
        })
    }

    pub(super) fn parts(self) -> impl Stream<Item = Part> + Send + 'static {
        stream::unfold(self, Self::next)
    }

    async fn next(mut self) -> Option<(Part, Self)> {
        if self.is_over {
            return None;
        }
        if let Some(notice) = self.notices.pop() {
            return Some((Part::Line(notice), self));
        }
        let Some(index) = self.earliest().await else {
            self.is_over = true;
            return Some((Part::End, self));
        };
        let (copy, records) = self.copies.get_mut(index)?;
        let shown = match records.next().await? {
            Ok(record) => Part::Line(convert::line(record, copy)),
            Err(refusal) if self.is_alone => {
                self.is_over = true;
                Part::Problem(problem(refusal))
            }
            Err(refusal) => Part::Line(trouble(&self.control, copy, &refusal)),
        };
        Some((shown, self))
    }

    /// Which copy's head is the earliest; copies at their end are left behind.
    async fn earliest(&mut self) -> Option<usize> {
        let mut earliest: Option<(usize, Timestamp)> = None;
        let mut index = 0;
        while let Some((_, records)) = self.copies.get_mut(index) {
            let at = match records.as_mut().peek().await {
                // A failure is told at once.
                Some(Err(_)) => Timestamp::default(),
                Some(Ok(record)) => record.at,
                None => {
                    drop(self.copies.remove(index));
                    continue;
                }
            };
            if earliest.is_none_or(|(_, earlier)| at < earlier) {
                earliest = Some((index, at));
            }
            index += 1;
        }
        earliest.map(|(index, _)| index)
    }
}

fn no_copy() -> Refusal {
    let sentence = "there is no copy whose log could be read";
    Refusal::new(
        Code::LogNotFound,
        sentence,
        "`hostler why` tells why copies have no node",
    )
}
