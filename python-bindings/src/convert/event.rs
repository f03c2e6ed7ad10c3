//! `podbroker.event`.

use podbroker_client::proto;
use proto::event::Event;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::execution::{attempt, execution, outcome, result_source, role};
use super::{Class, fields, promised, time};

const MODULE: &str = "podbroker.event";

/// An event, or nothing for a heartbeat and for a kind that this client is too old to know.
pub(crate) fn event(py: Python<'_>, event: proto::Event) -> PyResult<Option<Bound<'_, PyAny>>> {
    let cursor = PyBytes::new(py, &event.cursor);
    let made = match event.event {
        None | Some(Event::Heartbeat(_)) => return Ok(None),
        Some(Event::StateChanged(changed)) => {
            static CLASS: Class = Class::new(MODULE, "StateChanged");
            let execution = execution(py, promised(py, changed.execution, "the execution")?)?;
            CLASS.make(&fields!(py, cursor: cursor, execution: execution))
        }
        Some(Event::AttemptStarted(started)) => {
            static CLASS: Class = Class::new(MODULE, "AttemptStarted");
            let attempt = attempt(py, promised(py, started.attempt, "the attempt")?)?;
            CLASS.make(&fields!(py, cursor: cursor, attempt: attempt))
        }
        Some(Event::AttemptEnded(ended)) => {
            static CLASS: Class = Class::new(MODULE, "AttemptEnded");
            let attempt = attempt(py, promised(py, ended.attempt, "the attempt")?)?;
            let outcome = ended.outcome.map(|made| outcome(py, made)).transpose()?;
            CLASS.make(&fields!(py, cursor: cursor, attempt: attempt, outcome: outcome))
        }
        Some(Event::LogChunk(chunk)) => log_chunk(py, &cursor, chunk),
        Some(Event::LogGap(gap)) => log_gap(py, &cursor, gap),
        Some(Event::LogStreamEnd(end)) => {
            static CLASS: Class = Class::new(MODULE, "LogStreamEnd");
            CLASS.make(&fields!(py, cursor: cursor, instance: instance(py, end.instance)?, complete: end.complete))
        }
        Some(Event::Notice(notice)) => {
            static CLASS: Class = Class::new(MODULE, "Notice");
            let severity = severity(py, notice.severity)?;
            CLASS.make(&fields!(py, cursor: cursor, code: notice.code, message: notice.message, severity: severity))
        }
        Some(Event::Result(result)) => {
            static CLASS: Class = Class::new(MODULE, "Result");
            CLASS.make(&fields!(py,
                cursor: cursor,
                source: result_source(py, result.source)?,
                content: PyBytes::new(py, &result.content),
                problem: result.problem,
                not_json: result.not_json,
            ))
        }
        Some(Event::End(end)) => {
            static CLASS: Class = Class::new(MODULE, "End");
            let execution = execution(py, promised(py, end.execution, "the execution")?)?;
            CLASS.make(&fields!(py, cursor: cursor, execution: execution))
        }
    };
    made.map(Some)
}

fn log_chunk<'py>(
    py: Python<'py>,
    cursor: &Bound<'py, PyBytes>,
    chunk: proto::LogChunk,
) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "LogChunk");
    static LINE: Class = Class::new(MODULE, "LogLine");
    // All that a program prints comes through here. One dictionary serves all lines: the class copies what it is given.
    let line_class = LINE.get(py)?;
    let line = PyDict::new(py);
    let lines = chunk.lines.iter().map(|piece| {
        line.set_item(intern!(py, "time_ns"), piece.time_unix_nanos)?;
        line.set_item(intern!(py, "content"), PyBytes::new(py, &piece.content))?;
        line.set_item(intern!(py, "continues"), piece.continues)?;
        line.set_item(intern!(py, "partial"), piece.partial)?;
        line_class.call((), Some(&line))
    });
    let lines = PyTuple::new(py, lines.collect::<PyResult<Vec<_>>>()?)?;
    CLASS.make(&fields!(py,
        cursor: cursor,
        instance: instance(py, chunk.instance)?,
        lines: lines,
        line_cursor: PyBytes::new(py, &chunk.line_cursor),
    ))
}

fn log_gap<'py>(py: Python<'py>, cursor: &Bound<'py, PyBytes>, gap: proto::LogGap) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "LogGap");
    static REASON: Class = Class::new(MODULE, "GapReason");
    let reason = proto::GapReason::try_from(gap.reason).ok();
    CLASS.make(&fields!(py,
        cursor: cursor,
        instance: instance(py, gap.instance)?,
        reason: REASON.member(py, reason.map(|reason| reason.as_str_name()), "GAP_REASON_")?,
        after: time(py, gap.after)?,
        before: time(py, gap.before)?,
        lines_at_least: gap.lines_at_least,
        message: gap.message,
    ))
}

fn instance(py: Python<'_>, instance: Option<proto::ContainerInstance>) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "ContainerInstance");
    let instance = promised(py, instance, "the container instance")?;
    CLASS.make(&fields!(py,
        attempt: instance.attempt,
        container: instance.container,
        restart: instance.restart,
        role: role(py, instance.role)?,
    ))
}

fn severity(py: Python<'_>, number: i32) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "NoticeSeverity");
    let severity = proto::NoticeSeverity::try_from(number).ok();
    CLASS.member(py, severity.map(|severity| severity.as_str_name()), "NOTICE_SEVERITY_")
}
