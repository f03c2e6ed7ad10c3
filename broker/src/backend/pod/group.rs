//! Which place in its group a submit takes: a pure decision over the members that there are.
//!
//! At most one member is active, unless somebody asked for more. The members of a group are its generations, and the pod's name
//! is made of group and generation: whoever wants to start the next one, at whichever replica, asks the API server for the same
//! name, and only one of them gets it. `seat` carries the decision out.

use jiff::Timestamp;

use crate::execution::{Group, GroupAction};

/// A member of the group, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) generation: u32,
    pub(super) standing: Standing,
    pub(super) created: Option<Timestamp>,
    /// What it has to do with the submit.
    pub(super) tie: Tie,
}

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not ended, and nobody has asked for its end.
    Active,
    /// It was told to end and has not.
    Ending,
    /// It succeeded, and nobody has taken its outcome or started another one after it.
    Succeeded,
    /// It ended otherwise, or is done with.
    Over,
}

/// What a member has to do with a submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tie {
    /// Nothing.
    None,
    /// The submit created it, or attached to it, in an earlier try.
    Own,
}

/// What a submit is to do. Members are named by their generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It was here before: this is what it got.
    Found(u32),
    /// Take over this one.
    Attach(u32),
    /// Ask for the end of these, if any, and come again later.
    Wait { end: Vec<u32>, on: u32 },
    /// Start the next one, after the newest that there is.
    Start { after: Option<u32> },
}

/// What to do, given all members that there are.
pub(super) fn decide(members: &[Member], group: &Group) -> Decision {
    let newest = members.iter().max_by_key(|member| member.generation);
    let latest = |wanted: &dyn Fn(&Member) -> bool| {
        members.iter().filter(|member| wanted(member)).map(|member| member.generation).max()
    };
    if let Some(own) = latest(&|member| member.tie == Tie::Own) {
        return Decision::Found(own);
    }
    let start = Decision::Start { after: newest.map(|member| member.generation) };
    if group.action == GroupAction::Start {
        return start;
    }
    // The cluster knows whole seconds only.
    let second = |time: Timestamp| time.as_second();
    let is_recent = |member: &Member| {
        group.not_before.map(second).is_none_or(|limit| member.created.map(second).is_none_or(|at| at >= limit))
    };
    let attaches = |member: &Member| group.action == GroupAction::Attach && is_recent(member);
    // One that does not count any more must be gone before anything else is followed or started.
    let end: Vec<u32> = members
        .iter()
        .filter(|member| member.standing == Standing::Active && !attaches(member))
        .map(|member| member.generation)
        .collect();
    let ending = latest(&|member| member.standing == Standing::Ending);
    if let Some(on) = end.iter().copied().max() {
        return Decision::Wait { end, on };
    }
    if let Some(active) = latest(&|member| member.standing == Standing::Active) {
        return Decision::Attach(active);
    }
    if let Some(on) = ending {
        return Decision::Wait { end, on };
    }
    match newest {
        Some(newest) if newest.standing == Standing::Succeeded && attaches(newest) => {
            Decision::Attach(newest.generation)
        }
        _ => start,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn group(action: GroupAction, not_before: Option<i64>) -> Group {
        Group { id: "g".parse().unwrap(), action, not_before: not_before.map(at) }
    }

    fn member(generation: u32, standing: Standing) -> Member {
        // A generation is a second, so that `not_before` can be said in generations.
        Member { generation, standing, created: Some(at(generation.into())), tie: Tie::None }
    }

    fn own(generation: u32, standing: Standing) -> Member {
        Member { tie: Tie::Own, ..member(generation, standing) }
    }

    #[test]
    fn the_limit_is_kept_to_the_second() {
        let half = Timestamp::from_millisecond(5_500).unwrap();
        let group = Group { not_before: Some(half), ..group(GroupAction::Attach, None) };
        assert_eq!(decide(&[member(5, Standing::Active)], &group), Decision::Attach(5));
    }

    #[test]
    fn the_table_of_decisions() {
        use Decision::{Attach, Found, Start};
        use GroupAction::{Attach as A, CancelFirst as C, Start as S};
        use Standing::{Active, Ending, Over, Succeeded};
        let wait = |end: &[u32], on| Decision::Wait { end: end.to_vec(), on };
        let all = |of: &[(u32, Standing)]| of.iter().map(|(g, s)| member(*g, *s)).collect::<Vec<_>>();
        let cases = [
            // Nobody is there.
            (vec![], A, None, Start { after: None }),
            (vec![], C, None, Start { after: None }),
            // One is active.
            (all(&[(1, Active)]), A, None, Attach(1)),
            (all(&[(1, Active)]), C, None, wait(&[1], 1)),
            (all(&[(1, Active)]), S, None, Start { after: Some(1) }),
            // Created exactly at the limit counts; before it does not, and is ended first.
            (all(&[(5, Active)]), A, Some(5), Attach(5)),
            (all(&[(5, Active)]), A, Some(6), wait(&[5], 5)),
            (all(&[(5, Active)]), S, Some(6), Start { after: Some(5) }),
            // It was told to end.
            (all(&[(1, Ending)]), A, None, wait(&[], 1)),
            (all(&[(1, Ending)]), C, None, wait(&[], 1)),
            (all(&[(1, Ending)]), S, None, Start { after: Some(1) }),
            // It has ended.
            (all(&[(1, Succeeded)]), A, None, Attach(1)),
            (all(&[(5, Succeeded)]), A, Some(6), Start { after: Some(5) }),
            (all(&[(1, Succeeded)]), C, None, Start { after: Some(1) }),
            (all(&[(1, Over)]), A, None, Start { after: Some(1) }),
            // Only the newest success counts: what came after it was wanted.
            (all(&[(1, Succeeded), (2, Over)]), A, None, Start { after: Some(2) }),
            // Several are active, since somebody asked for that.
            (all(&[(1, Active), (2, Active)]), A, None, Attach(2)),
            (all(&[(1, Active), (2, Active)]), C, None, wait(&[1, 2], 2)),
            (all(&[(1, Active), (2, Active)]), A, Some(2), wait(&[1], 1)),
            (all(&[(1, Active), (2, Over)]), A, None, Attach(1)),
            (all(&[(1, Ending), (2, Active)]), A, None, Attach(2)),
            // It was here before: that counts more than anything else.
            (vec![own(1, Over), member(2, Active)], A, None, Found(1)),
            (vec![own(1, Active)], C, None, Found(1)),
            (vec![own(1, Active)], S, None, Found(1)),
            (vec![own(5, Active)], A, Some(6), Found(5)),
        ];
        for (index, (members, action, not_before, expected)) in cases.into_iter().enumerate() {
            assert_eq!(decide(&members, &group(action, not_before)), expected, "{index}: {members:?}");
        }
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        prop_oneof![Just(Standing::Active), Just(Standing::Ending), Just(Standing::Succeeded), Just(Standing::Over)]
    }

    proptest! {
        #[test]
        fn only_one_is_active_unless_more_were_asked_for(
            standings in prop::collection::vec((any_standing(), any::<bool>()), 0..6),
            cancels in any::<bool>(),
            not_before in prop::option::of(0_i64..7),
        ) {
            let members: Vec<_> = standings
                .iter()
                .zip(1..)
                .map(|((standing, is_own), generation)| match is_own {
                    true => own(generation, *standing),
                    false => member(generation, *standing),
                })
                .collect();
            let action = if cancels { GroupAction::CancelFirst } else { GroupAction::Attach };
            let standing = |generation: u32| members[generation as usize - 1].standing;
            let lives = |generation: u32| matches!(standing(generation), Standing::Active | Standing::Ending);
            let group = group(action, not_before);
            match decide(&members, &group) {
                Decision::Start { after } => {
                    prop_assert_eq!(after, members.last().map(|member| member.generation));
                    prop_assert!(members.iter().all(|member| !lives(member.generation) && member.tie == Tie::None));
                }
                Decision::Attach(generation) => {
                    prop_assert!(matches!(standing(generation), Standing::Active | Standing::Succeeded));
                    prop_assert!(!cancels && not_before.is_none_or(|limit| i64::from(generation) >= limit));
                }
                Decision::Wait { end, on } => {
                    prop_assert!(lives(on));
                    prop_assert!(end.iter().all(|generation| standing(*generation) == Standing::Active));
                }
                Decision::Found(generation) => prop_assert_eq!(members[generation as usize - 1].tie, Tie::Own),
            }
            // What was ended brings the submit to its place: it is never turned away for ever.
            let ended: Vec<_> = members
                .iter()
                .map(|member| if lives(member.generation) { Member { standing: Standing::Over, ..member.clone() } } else { member.clone() })
                .collect();
            let is_wait = matches!(decide(&ended, &group), Decision::Wait { .. });
            prop_assert!(!is_wait);
        }
    }
}
