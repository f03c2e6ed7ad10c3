//! How things look to a person.

use podbroker_client::{Error, proto};
use prost_types::Timestamp;

use super::Failure;
use super::parse::short_name;

/// A word of the contract as people write it: `START_DEADLINE` becomes `start deadline`.
pub(crate) fn words(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', " ")
}

pub(crate) fn state(state: proto::ExecutionState) -> String {
    words(state.as_str_name(), "EXECUTION_STATE_")
}

/// Nanoseconds since 1970 in RFC 3339, all nine digits, so that lines stand below each other.
pub(crate) fn nanos(nanos: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    let seconds = Timestamp { seconds: nanos.div_euclid(SECOND), nanos: 0 }.to_string();
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), nanos.rem_euclid(SECOND))
}

/// How long ago something was, in its largest unit.
pub(crate) fn age(since: Option<&Timestamp>, now: &Timestamp) -> String {
    let Some(since) = since else { return String::new() };
    match now.seconds.saturating_sub(since.seconds).max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The state, and why, in the broker's own sentence.
pub(crate) fn standing(execution: &proto::Execution) -> String {
    let state = state(execution.state());
    let why = match &execution.outcome {
        Some(outcome) if outcome.state() == proto::ExecutionState::Succeeded => "",
        Some(outcome) => outcome.message.trim(),
        None => execution.state_reason.trim(),
    };
    match why {
        "" => state,
        // A sentence that begins with the state needs no other.
        why if why.starts_with(&state) => why.to_owned(),
        why => format!("{state}: {why}"),
    }
}

/// The state, and why, in a few words that fit into a table.
pub(crate) fn brief(execution: &proto::Execution) -> String {
    let mut parts = vec![state(execution.state())];
    if let Some(outcome) = execution.outcome.as_ref().filter(|it| it.state() == proto::ExecutionState::Failed) {
        parts.push(words(outcome.failure_class().as_str_name(), "FAILURE_CLASS_"));
        parts.extend(outcome.exit_code.map(|code| format!("exit code {code}")));
    }
    parts.join(", ")
}

/// Everything about an execution that a person may want to know, one fact per line.
pub(crate) fn execution(execution: &proto::Execution) -> Vec<String> {
    let mut facts = vec![fact("name", &short_name(&execution.name)), fact("state", &standing(execution))];
    let mut labels: Vec<String> = execution.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    if !labels.is_empty() {
        facts.push(fact("labels", &labels.join(" ")));
    }
    for attempt in &execution.attempts {
        facts.push(fact("pod", &place(attempt)));
    }
    let times = [
        ("created", &execution.create_time),
        ("started", &execution.start_time),
        ("ended", &execution.end_time),
        ("released", &execution.release_time),
    ];
    facts.extend(times.iter().filter_map(|(name, time)| Some(fact(name, &time.as_ref()?.to_string()))));
    if let Some(cancel) = &execution.cancel {
        let reason = if cancel.reason.is_empty() { String::new() } else { format!(": {}", cancel.reason) };
        facts.push(fact("cancelled", &format!("by {}{reason}", cancel.requested_by)));
    }
    for container in execution.outcome.iter().flat_map(|outcome| &outcome.containers) {
        facts.push(fact("container", &container_outcome(container)));
    }
    facts
}

pub(crate) fn fact(name: &str, value: &str) -> String {
    format!("{name:<11} {value}").trim_end().to_owned()
}

fn place(attempt: &proto::Attempt) -> String {
    let pod = format!("{}/{}", attempt.pod_namespace, attempt.pod_name);
    if attempt.node_name.is_empty() { pod } else { format!("{pod} on {}", attempt.node_name) }
}

fn container_outcome(container: &proto::ContainerOutcome) -> String {
    let mut parts = vec![container.container.clone()];
    parts.extend(container.exit_code.map(|code| format!("exit code {code}")));
    parts.extend(container.signal.map(|signal| format!("signal {signal}")));
    if !container.reason.is_empty() {
        parts.push(container.reason.clone());
    }
    if container.restart_count > 0 {
        parts.push(format!("{} restarts", container.restart_count));
    }
    let line = parts.join(", ");
    // A termination message may be a whole stack trace; its last line says the most.
    match container.message.trim().lines().last() {
        Some(message) => format!("{line}: {message}"),
        None => line,
    }
}

/// A failed command, with what helps to mend it.
pub(crate) fn failure(failure: &Failure) -> String {
    match failure {
        Failure::Usage(message) => format!("error: {message}"),
        Failure::Output(cause) => format!("error: cannot write: {cause}"),
        Failure::Client(error) => client_error(error),
    }
}

fn client_error(error: &Error) -> String {
    let kind = if error.reason.is_empty() { error.code.as_str() } else { error.reason.as_str() };
    let mut lines = vec![format!("error: {} ({kind})", error.message)];
    let violations = error.field_violations.iter();
    lines.extend(violations.map(|violation| format!("  {}: {}", violation.field, violation.description)));
    if !error.request_id.is_empty() {
        lines.push(format!("  request {}", error.request_id));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_nine_digits() {
        assert_eq!(nanos(1_500_000_000), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(nanos(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(nanos(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn an_age_has_one_unit() {
        let now = Timestamp { seconds: 1_000_000, nanos: 0 };
        let ages = [0, 119, 120, 7_199, 7_200, 172_800]
            .map(|ago| age(Some(&Timestamp { seconds: now.seconds - ago, nanos: 0 }), &now));
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "2d"]);
        assert_eq!(age(None, &now), "");
    }

    #[test]
    fn an_execution_says_how_it_stands_and_why() {
        let mut execution = proto::Execution { state_reason: "no node has room".to_owned(), ..Default::default() };
        execution.set_state(proto::ExecutionState::Pending);
        assert_eq!(
            (standing(&execution).as_str(), brief(&execution).as_str()),
            ("pending: no node has room", "pending")
        );
        execution.set_state(proto::ExecutionState::Failed);
        execution.outcome = Some(proto::Outcome {
            state: proto::ExecutionState::Failed.into(),
            failure_class: proto::FailureClass::OutOfMemory.into(),
            exit_code: Some(137),
            message: "container main needed more memory".to_owned(),
            ..Default::default()
        });
        assert_eq!(standing(&execution), "failed: container main needed more memory");
        assert_eq!(brief(&execution), "failed, out of memory, exit code 137");
        execution.set_state(proto::ExecutionState::Cancelled);
        execution.outcome = Some(proto::Outcome {
            state: proto::ExecutionState::Cancelled.into(),
            message: "cancelled by me".to_owned(),
            ..Default::default()
        });
        assert_eq!((standing(&execution).as_str(), brief(&execution).as_str()), ("cancelled by me", "cancelled"));
    }

    #[test]
    fn the_facts_of_an_execution_stand_in_one_column() {
        let mut running = proto::Execution { name: "targets/t/executions/e".to_owned(), ..Default::default() };
        running.set_state(proto::ExecutionState::Running);
        running.labels.insert("b".to_owned(), "2".to_owned());
        running.labels.insert("a".to_owned(), "1".to_owned());
        running.attempts.push(proto::Attempt {
            pod_name: "p".to_owned(),
            pod_namespace: "n".to_owned(),
            node_name: "node".to_owned(),
            ..Default::default()
        });
        let expected = ["name        t/e", "state       running", "labels      a=1 b=2", "pod         n/p on node"];
        assert_eq!(execution(&running), expected);
    }
}
