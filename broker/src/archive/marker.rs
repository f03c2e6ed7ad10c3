//! What the archive says of an execution whose lines it could not get: how it ended, and that lines are missing.

use std::time::Duration;

use super::segment::key;
use crate::execution::{
    Completeness, Cursor, Event, EventKind, Execution, Gap, GapReason, Instance, InstancePosition, NoResult, Notice,
    Position, ResultSource, Severity,
};

/// The notice that the archive has not all of an execution.
pub(super) const INCOMPLETE: &str = "ARCHIVE_INCOMPLETE";

/// What is told after a cursor of an execution that was deleted before the archive had all of it.
pub(super) fn events(execution: &Execution, mut cursor: Cursor, patience: Duration) -> Vec<Event> {
    let mut events = Vec::new();
    let why = format!("its pod was deleted after the archive could not be written for {} s", patience.as_secs());
    let said = |cursor: &Cursor, kind| Event { cursor: cursor.clone(), kind };
    for attempt in &execution.attempts {
        if attempt.number > cursor.attempts_started {
            cursor.attempts_started = attempt.number;
            events.push(said(&cursor, EventKind::AttemptStarted(attempt.clone())));
        }
    }
    cursor.add_notice(crc32fast::hash(INCOMPLETE.as_bytes()));
    let message = format!("lines of this execution are missing in the archive: {why}");
    let notice = Notice { code: INCOMPLETE, message, severity: Severity::Warning };
    events.push(said(&cursor, EventKind::Notice(notice)));

    let (Some(outcome), Some(last)) = (&execution.outcome, execution.attempts.last()) else { return events };
    for container in outcome.containers.iter().filter(|container| container.started.is_some()) {
        let instance = Instance {
            attempt: last.number,
            container: container.container.clone(),
            restart: container.restarts,
            role: container.role,
        };
        let key = key(&instance);
        if cursor.stream(&key).position == Position::Complete {
            continue;
        }
        let gap = Gap {
            instance: instance.clone(),
            reason: GapReason::PodDeleted,
            after: None,
            before: None,
            lines_at_least: 0,
            message: why.clone(),
        };
        events.push(said(&cursor, EventKind::LogGap(gap)));
        cursor.set_stream(&key, InstancePosition { position: Position::Complete, skip: 0 });
        events.push(said(&cursor, EventKind::LogStreamEnd(instance, Completeness::Cut)));
    }
    let source = execution.policies.result;
    if source != ResultSource::None && !cursor.result_sent {
        cursor.result_sent = true;
        events.push(said(&cursor, EventKind::Result(source, Err(NoResult::Unreadable(why)))));
    }
    if last.number > cursor.attempts_ended {
        cursor.end_attempt(last.number);
        events.push(said(&cursor, EventKind::AttemptEnded(last.clone(), outcome.clone())));
    }
    events
}
