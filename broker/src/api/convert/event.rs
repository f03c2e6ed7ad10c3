//! Events for the wire.

use bytes::Bytes;
use podbroker_proto::v1 as wire;
use wire::event::Event as Kind;

use super::count;
use super::enums::{wire_gap_reason, wire_result_source, wire_role, wire_severity};
use super::execution::{attempt, execution, outcome};
use super::time::wire_timestamp;
use crate::execution::{
    Completeness, Event, EventKind, Gap, Instance, LogChunk, LogLine, NoResult, Notice, ResultSource, StreamKey,
};

/// One item of a watch, with its cursor.
pub(in crate::api) fn event(event: Event) -> wire::Event {
    let cursor = Bytes::from(event.cursor.encode());
    let kind = match event.kind {
        EventKind::StateChanged(now) => Kind::StateChanged(wire::StateChanged { execution: Some(execution(*now)) }),
        EventKind::AttemptStarted(started) => {
            Kind::AttemptStarted(wire::AttemptStarted { attempt: Some(attempt(started)) })
        }
        EventKind::AttemptEnded(ended, how) => {
            Kind::AttemptEnded(wire::AttemptEnded { attempt: Some(attempt(ended)), outcome: Some(outcome(how)) })
        }
        EventKind::LogChunk(chunk) => Kind::LogChunk(log_chunk(chunk)),
        EventKind::LogGap(gap) => Kind::LogGap(log_gap(gap)),
        EventKind::LogStreamEnd(of, completeness) => Kind::LogStreamEnd(wire::LogStreamEnd {
            instance: Some(instance(of)),
            complete: completeness == Completeness::Complete,
        }),
        EventKind::Notice(said) => Kind::Notice(notice(said)),
        EventKind::Result(source, value) => Kind::Result(result(source, value)),
        EventKind::End(last) => Kind::End(wire::End { execution: Some(execution(*last)) }),
    };
    wire::Event { cursor, event: Some(kind) }
}

/// Says that the watch is alive, and moves no cursor.
pub(in crate::api) fn heartbeat() -> wire::Event {
    wire::Event { cursor: Bytes::new(), event: Some(Kind::Heartbeat(wire::Heartbeat {})) }
}

fn instance(instance: Instance) -> wire::ContainerInstance {
    wire::ContainerInstance {
        attempt: count(instance.attempt),
        container: instance.container,
        restart: count(instance.restart),
        role: wire_role(instance.role).into(),
    }
}

fn log_chunk(chunk: LogChunk) -> wire::LogChunk {
    let LogChunk { instance: of, lines, before } = chunk;
    let key = StreamKey { attempt: of.attempt, container: of.container.clone(), restart: of.restart };
    wire::LogChunk {
        line_cursor: before.encode_inside(&key).into(),
        instance: Some(instance(of)),
        lines: lines.into_iter().map(log_line).collect(),
    }
}

fn log_line(line: LogLine) -> wire::LogLine {
    let LogLine { nanos, content, continues, partial } = line;
    wire::LogLine { time_unix_nanos: nanos, content, continues, partial }
}

fn log_gap(gap: Gap) -> wire::LogGap {
    wire::LogGap {
        instance: Some(instance(gap.instance)),
        reason: wire_gap_reason(gap.reason).into(),
        after: gap.after.map(wire_timestamp),
        before: gap.before.map(wire_timestamp),
        lines_at_least: i64::try_from(gap.lines_at_least).unwrap_or(i64::MAX),
        message: gap.message,
    }
}

fn notice(notice: Notice) -> wire::Notice {
    wire::Notice {
        code: notice.code.to_owned(),
        message: notice.message,
        severity: wire_severity(notice.severity).into(),
    }
}

fn result(source: ResultSource, value: Result<Bytes, NoResult>) -> wire::Result {
    let (content, problem) = match value {
        Ok(content) => (content.into(), String::new()),
        Err(none) => (Vec::new(), none.problem().to_owned()),
    };
    let not_json = not_json(&content).unwrap_or_default();
    wire::Result { source: wire_result_source(source).into(), content, problem, not_json }
}

/// Why a value is no JSON. Looked through once and not kept: it is at most 1 MiB.
fn not_json(content: &[u8]) -> Option<String> {
    if content.trim_ascii().is_empty() {
        return None;
    }
    // What is passed over is not looked at as text.
    if let Err(error) = std::str::from_utf8(content) {
        return Some(format!("it is not UTF-8: {error}"));
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(content).err().map(|error| error.to_string())
}
