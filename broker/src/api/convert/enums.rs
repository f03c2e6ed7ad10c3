//! Enums of the wire and ours, both ways, without a wildcard: a new variant does not compile until it has its counterpart.
//!
//! From the wire, zero is "nothing said" and a number that this version does not know is refused, never taken for zero.

use podbroker_proto::v1 as wire;

use crate::error::Error;
use crate::execution::{
    ContainerRole, FailureClass, FinishAction, GapReason, GroupAction, ResultSource, Severity, State,
};
use crate::target::Kind;

/// An enum's number as its type.
pub(super) fn known<T: TryFrom<i32>>(field: &'static str, number: i32) -> Result<T, Error> {
    T::try_from(number)
        .map_err(|_| Error::invalid_request(field, format!("this broker does not know the value {number}")))
}

pub(super) fn finish(field: &'static str, number: i32) -> Result<Option<FinishAction>, Error> {
    Ok(match known(field, number)? {
        wire::FinishAction::Unspecified => None,
        wire::FinishAction::Delete => Some(FinishAction::Delete),
        wire::FinishAction::DeleteSucceeded => Some(FinishAction::DeleteSucceeded),
        wire::FinishAction::Keep => Some(FinishAction::Keep),
    })
}

pub(super) fn wire_finish(action: FinishAction) -> wire::FinishAction {
    match action {
        FinishAction::Delete => wire::FinishAction::Delete,
        FinishAction::DeleteSucceeded => wire::FinishAction::DeleteSucceeded,
        FinishAction::Keep => wire::FinishAction::Keep,
    }
}

pub(super) fn group_action(field: &'static str, number: i32) -> Result<GroupAction, Error> {
    Ok(match known(field, number)? {
        wire::GroupAction::Unspecified | wire::GroupAction::Attach => GroupAction::Attach,
        wire::GroupAction::CancelFirst => GroupAction::CancelFirst,
        wire::GroupAction::Start => GroupAction::Start,
    })
}

pub(super) fn result_source(field: &'static str, number: i32) -> Result<Option<ResultSource>, Error> {
    Ok(match known(field, number)? {
        wire::ResultSource::Unspecified => None,
        wire::ResultSource::None => Some(ResultSource::None),
        wire::ResultSource::Sidecar => Some(ResultSource::Sidecar),
        wire::ResultSource::TerminationMessage => Some(ResultSource::TerminationMessage),
    })
}

pub(super) fn wire_result_source(source: ResultSource) -> wire::ResultSource {
    match source {
        ResultSource::None => wire::ResultSource::None,
        ResultSource::Sidecar => wire::ResultSource::Sidecar,
        ResultSource::TerminationMessage => wire::ResultSource::TerminationMessage,
    }
}

pub(super) fn state(field: &'static str, number: i32) -> Result<State, Error> {
    Ok(match known(field, number)? {
        wire::ExecutionState::Unspecified => return Err(Error::invalid_request(field, "a state must be named")),
        wire::ExecutionState::Queued => State::Queued,
        wire::ExecutionState::Pending => State::Pending,
        wire::ExecutionState::Running => State::Running,
        wire::ExecutionState::Ending => State::Ending,
        wire::ExecutionState::Succeeded => State::Succeeded,
        wire::ExecutionState::Failed => State::Failed,
        wire::ExecutionState::Cancelled => State::Cancelled,
    })
}

pub(super) fn wire_state(state: State) -> wire::ExecutionState {
    match state {
        State::Queued => wire::ExecutionState::Queued,
        State::Pending => wire::ExecutionState::Pending,
        State::Running => wire::ExecutionState::Running,
        State::Ending => wire::ExecutionState::Ending,
        State::Succeeded => wire::ExecutionState::Succeeded,
        State::Failed => wire::ExecutionState::Failed,
        State::Cancelled => wire::ExecutionState::Cancelled,
    }
}

pub(super) fn class(field: &'static str, number: i32) -> Result<FailureClass, Error> {
    Ok(match known(field, number)? {
        wire::FailureClass::Unspecified => return Err(Error::invalid_request(field, "a class must be named")),
        wire::FailureClass::Application => FailureClass::Application,
        wire::FailureClass::OutOfMemory => FailureClass::OutOfMemory,
        wire::FailureClass::Deadline => FailureClass::Deadline,
        wire::FailureClass::StartDeadline => FailureClass::StartDeadline,
        wire::FailureClass::Evicted => FailureClass::Evicted,
        wire::FailureClass::Preempted => FailureClass::Preempted,
        wire::FailureClass::SpotInterrupted => FailureClass::SpotInterrupted,
        wire::FailureClass::NodeLost => FailureClass::NodeLost,
        wire::FailureClass::ImagePull => FailureClass::ImagePull,
        wire::FailureClass::Unschedulable => FailureClass::Unschedulable,
        wire::FailureClass::InvalidSpec => FailureClass::InvalidSpec,
        wire::FailureClass::AdmissionDenied => FailureClass::AdmissionDenied,
        wire::FailureClass::Quota => FailureClass::Quota,
        wire::FailureClass::PodDeleted => FailureClass::PodDeleted,
        wire::FailureClass::CancelledByCaller => FailureClass::CancelledByCaller,
        wire::FailureClass::Orphaned => FailureClass::Orphaned,
        wire::FailureClass::Broker => FailureClass::Broker,
    })
}

pub(super) fn wire_class(class: FailureClass) -> wire::FailureClass {
    match class {
        FailureClass::Application => wire::FailureClass::Application,
        FailureClass::OutOfMemory => wire::FailureClass::OutOfMemory,
        FailureClass::Deadline => wire::FailureClass::Deadline,
        FailureClass::StartDeadline => wire::FailureClass::StartDeadline,
        FailureClass::Evicted => wire::FailureClass::Evicted,
        FailureClass::Preempted => wire::FailureClass::Preempted,
        FailureClass::SpotInterrupted => wire::FailureClass::SpotInterrupted,
        FailureClass::NodeLost => wire::FailureClass::NodeLost,
        FailureClass::ImagePull => wire::FailureClass::ImagePull,
        FailureClass::Unschedulable => wire::FailureClass::Unschedulable,
        FailureClass::InvalidSpec => wire::FailureClass::InvalidSpec,
        FailureClass::AdmissionDenied => wire::FailureClass::AdmissionDenied,
        FailureClass::Quota => wire::FailureClass::Quota,
        FailureClass::PodDeleted => wire::FailureClass::PodDeleted,
        FailureClass::CancelledByCaller => wire::FailureClass::CancelledByCaller,
        FailureClass::Orphaned => wire::FailureClass::Orphaned,
        FailureClass::Broker => wire::FailureClass::Broker,
    }
}

pub(super) fn wire_role(role: ContainerRole) -> wire::ContainerRole {
    match role {
        ContainerRole::Init => wire::ContainerRole::Init,
        ContainerRole::Sidecar => wire::ContainerRole::Sidecar,
        ContainerRole::Deciding => wire::ContainerRole::Deciding,
        ContainerRole::Other => wire::ContainerRole::Other,
    }
}

pub(super) fn wire_gap_reason(reason: GapReason) -> wire::GapReason {
    match reason {
        GapReason::Rotated => wire::GapReason::Rotated,
        GapReason::PodDeleted => wire::GapReason::PodDeleted,
        GapReason::ResumeAmbiguous => wire::GapReason::ResumeAmbiguous,
        GapReason::BudgetExceeded => wire::GapReason::BudgetExceeded,
        GapReason::DrainDeadline => wire::GapReason::DrainDeadline,
        GapReason::Refused => wire::GapReason::Refused,
        GapReason::SlowReader => wire::GapReason::SlowReader,
    }
}

pub(super) fn wire_severity(severity: Severity) -> wire::NoticeSeverity {
    match severity {
        Severity::Info => wire::NoticeSeverity::Info,
        Severity::Warning => wire::NoticeSeverity::Warning,
    }
}

pub(super) fn wire_kind(kind: Kind) -> wire::TargetKind {
    match kind {
        Kind::Kubeconfig => wire::TargetKind::Kubeconfig,
        Kind::InCluster => wire::TargetKind::InCluster,
        Kind::Eks => wire::TargetKind::Eks,
    }
}
