//! Events and log lines.

use hostler_control::{LogRecord, LogStream};
use hostler_model::{Assignment, Event, Level, Timestamp};
use hostler_wire::api;

use super::moment;

/// An event as the API shows it.
pub(in crate::api) fn event(event: &Event) -> api::Event {
    api::Event {
        sequence: event.sequence,
        at: moment(event.at),
        kind: event.kind.as_str().to_owned(),
        level: match event.level {
            Level::Info => api::Level::Info,
            Level::Warning => api::Level::Warning,
        },
        subject: api::Subject {
            node: event.subject.node.map(|id| id.to_string()),
            workload: event.subject.workload.map(|id| id.to_string()),
            assignment: event.subject.assignment.map(|id| id.to_string()),
        },
        message: event.message.clone(),
        actor: event.actor.clone(),
    }
}

/// A line of a copy's log.
pub(in crate::api) fn line(record: LogRecord, copy: &Assignment) -> api::LogLine {
    api::LogLine {
        at: moment(record.at),
        stream: match record.stream {
            LogStream::Stdout => api::LogStream::Stdout,
            LogStream::Stderr => api::LogStream::Stderr,
            LogStream::Notice => api::LogStream::Notice,
        },
        text: record.text,
        partial: record.is_partial,
        run: record.run,
        slot: copy.slot,
        copy: copy.id.short(),
    }
}

/// Our own word within a copy's log.
pub(in crate::api) fn notice(at: Timestamp, text: String, copy: &Assignment) -> api::LogLine {
    let record = LogRecord {
        at,
        stream: LogStream::Notice,
        text,
        is_partial: false,
        run: 0,
    };
    line(record, copy)
}
