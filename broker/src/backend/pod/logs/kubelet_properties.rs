//! Watchers against a model of the kubelet: whatever it and the network do, what arrives is what was written, without what a
//! gap stands for.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::play::{Act, Habit, begun, run};
use super::*;
use crate::execution::GapReason;

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1_u16..80, prop_oneof![Just(0), 1_i64..20_000_000], prop_oneof![3 => Just(0), 1 => 1_i64..5_000_000])
            .prop_map(|(lines, step, jitter)| Act::Write { lines, step, jitter }),
        3 => (0_u64..12_000).prop_map(|millis| Act::Sleep { millis }),
        2 => Just(Act::Rotate),
    ]
}

fn fault() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Cut),
        1 => Just(Act::CleanCut),
        1 => Just(Act::ToldCut),
        1 => (1_u64..3).prop_map(|answers| Act::Refuse { answers }),
        1 => (0_u64..15_000).prop_map(|millis| Act::Stall { millis }),
        1 => Just(Act::Silence),
        1 => Just(Act::Delete),
    ]
}

fn restart() -> impl Strategy<Value = Act> {
    (0_u64..15_000).prop_map(|millis| Act::Restart { millis })
}

fn clock() -> impl Strategy<Value = Act> {
    prop_oneof![2 => 1_i64..100, 1 => -100_i64..-1, 1 => Just(3600)].prop_map(|seconds| Act::ClockBack { seconds })
}

fn habits() -> impl Strategy<Value = Vec<Habit>> {
    let habit = (
        prop_oneof![Just(0), 0_u64..20_000],
        prop_oneof![2 => Just(0), 1 => 0_u64..3000],
        prop_oneof![1 => Just(None), 1 => (1_usize..6).prop_map(Some)],
        prop_oneof![3 => Just(0), 1 => 0_u64..80_000],
    );
    let habit = habit.prop_map(|(late, slow, lets_go, away)| Habit { late, slow, lets_go, away, run: 0 });
    prop::collection::vec(habit, 1..4)
}

fn limits() -> impl Strategy<Value = SpoolLimits> {
    prop_oneof![
        Just(SpoolLimits::default()),
        Just(SpoolLimits { memory_per_stream: 2000, memory: 4000, ..SpoolLimits::default() }),
        Just(SpoolLimits { memory_per_stream: 2000, memory: 4000, disk: 4000, ..SpoolLimits::default() }),
        Just(SpoolLimits { memory_per_stream: 2000, memory: 4000, disk: 0, ..SpoolLimits::default() }),
    ]
}

/// The same cases every time; `PODBROKER_LOG_CASES` and `PODBROKER_LOG_SEED` for others and more.
#[expect(clippy::disallowed_methods, reason = "it sets nothing of the broker")]
fn cases() -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    ProptestConfig {
        cases: number("PODBROKER_LOG_CASES").unwrap_or(96),
        rng_seed: RngSeed::Fixed(number("PODBROKER_LOG_SEED").unwrap_or(7).into()),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_arrives_is_what_was_written_without_the_marked_gaps(
        acts in prop::collection::vec(prop_oneof![4 => act(), 1 => fault()], 1..25),
        habits in habits(), limits in limits(), piece in 50_usize..5000,
    ) {
        run(&begun(acts), &habits, limits, piece);
    }

    #[test]
    fn whatever_the_clock_does_nothing_is_lost_without_a_gap(
        acts in prop::collection::vec(prop_oneof![5 => act(), 1 => fault(), 1 => clock()], 1..25),
        habits in habits(), limits in limits(), piece in 50_usize..5000,
    ) {
        run(&begun(acts), &habits, limits, piece);
    }

    #[test]
    fn whatever_is_restarted_each_run_is_told_without_the_marked_gaps(
        acts in prop::collection::vec(prop_oneof![6 => act(), 1 => fault(), 1 => restart()], 1..25),
        habits in habits(), runs in prop::collection::vec(0_u32..4, 4), limits in limits(), piece in 50_usize..5000,
    ) {
        // Each run begins as the first one does.
        let acts = acts.into_iter().flat_map(|act| match act {
            Act::Restart { .. } => [act].into_iter().chain(begun(vec![])).collect::<Vec<_>>(),
            act => vec![act],
        });
        let habits: Vec<_> = habits.into_iter().zip(runs).map(|(habit, run)| Habit { run, ..habit }).collect();
        run(&begun(acts.collect()), &habits, limits, piece);
    }

    #[test]
    fn where_nothing_breaks_there_is_no_gap(
        acts in prop::collection::vec(act(), 1..25),
        slow in prop_oneof![Just(0), 0_u64..3000], piece in 50_usize..5000,
    ) {
        let small = SpoolLimits { memory_per_stream: 2000, memory: 4000, ..SpoolLimits::default() };
        let (_, heard, _) = run(&begun(acts), &[Habit::default(), Habit { slow, ..Habit::default() }], small, piece);
        for heard in heard {
            prop_assert_eq!(heard.gaps, vec![]);
        }
    }

    #[test]
    fn where_nothing_is_rotated_there_is_no_gap(
        acts in prop::collection::vec(
            prop_oneof![4 => act(), 1 => fault()]
                .prop_filter("loss", |act| !matches!(act, Act::Rotate | Act::Delete)),
            1..25,
        ),
        habits in habits(), limits in limits(), piece in 50_usize..5000,
    ) {
        let (_, heard, _) = run(&acts, &habits, limits, piece);
        for heard in heard {
            prop_assert!(heard.gaps.iter().all(|gap| gap.reason == GapReason::SlowReader), "{:?}", heard.gaps);
        }
    }

    #[test]
    fn a_clock_that_goes_back_is_no_gap(
        acts in prop::collection::vec(
            prop_oneof![
                6 => act().prop_filter("rotation", |act| !matches!(act, Act::Rotate)),
                1 => clock(),
                1 => prop_oneof![Just(Act::Cut), Just(Act::CleanCut), Just(Act::ToldCut)],
            ],
            1..25,
        ),
        slow in prop_oneof![Just(0), 0_u64..3000], piece in 50_usize..5000,
    ) {
        let habits = [Habit::default(), Habit { slow, ..Habit::default() }];
        let (_, heard, _) = run(&acts, &habits, SpoolLimits::default(), piece);
        for heard in heard {
            prop_assert_eq!(heard.gaps, vec![]);
        }
    }

    #[test]
    fn a_clock_that_goes_back_and_rotations_are_no_gap(
        acts in prop::collection::vec(prop_oneof![6 => act(), 1 => (1_i64..4000).prop_map(|seconds| Act::ClockBack { seconds })], 1..25),
        slow in prop_oneof![Just(0), 0_u64..3000], piece in 50_usize..5000,
    ) {
        // A clock that goes back while the container is silent is seen later, and by how much it did is not.
        let one = Act::Write { lines: 1, step: 0, jitter: 0 };
        let acts = acts.into_iter().flat_map(|act| match act {
            Act::ClockBack { .. } => vec![one.clone(), act, one.clone()],
            // Nor is the end of a file that is rotated as soon as it was written.
            Act::Rotate => vec![Act::Sleep { millis: 50 }, act],
            act => vec![act],
        });
        let acts: Vec<_> = acts.collect();
        let habits = [Habit::default(), Habit { slow, ..Habit::default() }];
        let (_, heard, _) = run(&begun(acts), &habits, SpoolLimits::default(), piece);
        for heard in heard {
            prop_assert_eq!(heard.gaps, vec![]);
        }
    }
}
