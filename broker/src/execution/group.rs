//! Groups: executions that take each other's place, such as the tries of one task.

use jiff::Timestamp;

use super::GroupId;

/// The group of a submit, and what to do about those who are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Which one.
    pub id: GroupId,
    /// What to do when it has an execution already.
    pub action: GroupAction,
    /// What was created before is never attached to, and ended first.
    pub not_before: Option<Timestamp>,
}

/// What a submit does when its group already has an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupAction {
    /// Attach to one that is active, or to the newest if it succeeded and was not released.
    Attach,
    /// End what is active first.
    CancelFirst,
    /// Start beside it.
    Start,
}
