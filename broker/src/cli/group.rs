//! The group of an execution, on the command line.

use clap::{Args, ValueEnum};
use podbroker_client::proto;

/// Executions that take each other's place, such as the tries of one task.
#[derive(Args, Debug)]
pub(crate) struct GroupArgs {
    /// The group that it belongs to; at most one execution of a group is active
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    /// What to do when the group has an execution already
    #[arg(long, value_name = "ACTION", default_value = "attach", requires = "group")]
    group_action: Action,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Action {
    /// Follow one that is active, or the newest if it succeeded and was not released
    Attach,
    /// Cancel an active one first
    CancelFirst,
    /// Start beside it
    Start,
}

impl GroupArgs {
    /// As the contract has it.
    pub(crate) fn group(&self) -> Option<proto::Group> {
        let action = match self.group_action {
            Action::Attach => proto::GroupAction::Attach,
            Action::CancelFirst => proto::GroupAction::CancelFirst,
            Action::Start => proto::GroupAction::Start,
        };
        let group_id = self.group.clone()?;
        Some(proto::Group { group_id, action: action.into(), not_before: None })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        group: GroupArgs,
    }

    fn parsed(line: &[&str]) -> Option<(String, proto::GroupAction)> {
        let group = Line::try_parse_from([&["run"], line].concat()).ok()?.group.group()?;
        Some((group.group_id.clone(), group.action()))
    }

    #[test]
    fn a_group_is_asked_for_with_what_to_do_about_the_others() {
        use proto::GroupAction::{Attach, CancelFirst};
        assert_eq!(parsed(&["--group", "g"]), Some(("g".to_owned(), Attach)));
        assert_eq!(parsed(&["--group", "g", "--group-action", "cancel-first"]), Some(("g".to_owned(), CancelFirst)));
        assert_eq!(parsed(&["--group-action", "start"]), None);
        assert_eq!(parsed(&[]), None);
    }
}
