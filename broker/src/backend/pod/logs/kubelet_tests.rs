//! Watchers against a model of the kubelet, one story after another. `kubelet_properties` makes up more of them.

use super::super::view::{Nature, Presence};
use super::kubelet::{BASE, Kubelet, S};
use super::play::{Act, Habit, Heard, Stands, WRITE, begun, hear, run, runtime, view};
use super::*;
use crate::backend::log_group::{LogGroupError, ShippedEvent, ShippedPage};
use crate::execution::GapReason;

#[test]
fn two_watchers_cost_one_request() {
    let acts = [WRITE, Act::Sleep { millis: 2000 }, WRITE];
    let habits = [Habit::default(), Habit { late: 300, ..Habit::default() }];
    let (written, heard, kubelet) = run(&acts, &habits, SpoolLimits::default(), 1000);
    assert!(heard.iter().all(|heard| heard.items.len() == written && heard.gaps.is_empty()));
    // The follow, a look at its end, and the last read.
    assert_eq!(kubelet.state.lock().unwrap().requests, 3);
}

#[test]
fn a_slow_watcher_gets_from_disk_what_was_rotated_away_meanwhile() {
    let mut acts = Vec::new();
    for _ in 0..10 {
        acts.extend([Act::Write { lines: 500, step: 1_000_000, jitter: 0 }, Act::Rotate]);
    }
    let small = SpoolLimits { memory_per_stream: 4096, memory: 8192, ..SpoolLimits::default() };
    let slow = Habit { slow: 10_000, ..Habit::default() };
    let (_, heard, _) = run(&begun(acts), &[Habit::default(), slow], small, 1000);
    let gaps: Vec<_> = heard.iter().flat_map(|heard| &heard.gaps).collect();
    assert!(gaps.is_empty(), "{gaps:?}");
}

#[test]
fn a_slow_watcher_whose_connection_breaks_again_and_again_gets_it_too() {
    let mut acts = Vec::new();
    for _ in 0..10 {
        acts.extend([Act::Write { lines: 500, step: 1_000_000, jitter: 0 }, Act::Rotate]);
    }
    let small = SpoolLimits { memory_per_stream: 4096, memory: 8192, ..SpoolLimits::default() };
    let slow = Habit { slow: 10_000, lets_go: Some(3), away: 45_000, ..Habit::default() };
    for others in [vec![], vec![Habit::default()]] {
        let habits = [others, vec![slow]].concat();
        let (_, heard, _) = run(&begun(acts.clone()), &habits, small.clone(), 1000);
        let gaps: Vec<_> = heard.iter().flat_map(|heard| &heard.gaps).collect();
        assert!(gaps.is_empty(), "{gaps:?}");
    }
}

#[test]
fn a_watcher_for_whom_there_was_no_room_is_told_how_much_is_missing() {
    let mut acts = Vec::new();
    for _ in 0..10 {
        acts.extend([Act::Write { lines: 500, step: 1_000_000, jitter: 0 }, Act::Rotate]);
    }
    let none = SpoolLimits { memory_per_stream: 40_000, memory: 80_000, disk: 0, ..SpoolLimits::default() };
    let slow = Habit { slow: 10_000, ..Habit::default() };
    let (written, heard, _) = run(&begun(acts), &[Habit::default(), slow], none, 1000);
    assert_eq!(heard[0].gaps, []);
    let slow = &heard[1];
    assert!(
        !slow.gaps.is_empty() && slow.gaps.iter().all(|gap| gap.reason == GapReason::SlowReader),
        "{:?}",
        slow.gaps
    );
    assert!(slow.gaps.iter().all(|gap| gap.after < gap.before), "{:?}", slow.gaps);
    let lines = slow.items.iter().flatten().count() as u64;
    let missing: u64 = slow.gaps.iter().map(|gap| gap.lines_at_least).sum();
    assert_eq!(lines + missing, written as u64);
}

#[test]
fn a_file_that_the_kubelet_passed_over_is_marked() {
    let acts = [
        WRITE,
        Act::Sleep { millis: 500 },
        WRITE,
        Act::Stall { millis: 10_000 },
        WRITE,
        Act::Rotate,
        WRITE,
        Act::Rotate,
        WRITE,
        Act::Sleep { millis: 10_000 },
        WRITE,
    ];
    let (_, heard, _) = run(&acts, &[Habit::default()], SpoolLimits::default(), 1000);
    assert_eq!(heard[0].gaps.len(), 1, "{:?}", heard[0].gaps);
    assert_eq!(heard[0].gaps[0].reason, GapReason::ResumeAmbiguous);
}

#[test]
fn a_follow_that_the_kubelet_forgot_at_a_rotation_is_opened_again_before_the_next_one() {
    let at_once = |lines| Act::Write { lines, step: 0, jitter: 0 };
    let silence = Act::Sleep { millis: 20_000 };
    let acts =
        [Act::Stall { millis: 4000 }, at_once(2000), Act::Rotate, at_once(10), silence, Act::Rotate, at_once(10)];
    let (written, heard, _) = run(&acts, &[Habit::default()], SpoolLimits::default(), 1000);
    // Whether there was a file between the two cannot be known.
    assert_eq!(heard[0].gaps.len(), 1, "{:?}", heard[0].gaps);
    assert_eq!(heard[0].items.iter().flatten().count(), written);
}

#[test]
fn a_watcher_that_comes_later_reads_the_file_up_to_where_the_stream_is_held() {
    let mut acts = vec![];
    for _ in 0..20 {
        acts.extend([WRITE, Act::Sleep { millis: 1000 }]);
    }
    let small = SpoolLimits { memory_per_stream: 2000, memory: 4000, ..SpoolLimits::default() };
    let late = Habit { late: 15_000, ..Habit::default() };
    let (_, heard, kubelet) = run(&acts, &[Habit::default(), late], small, 1000);
    assert!(heard.iter().all(|heard| heard.gaps.is_empty()), "{heard:?}");
    assert_eq!(kubelet.state.lock().unwrap().requests, 5);
}

#[test]
fn a_file_that_ends_with_a_step_back_and_is_gone_when_that_is_looked_into_is_marked() {
    let at_once = |lines| Act::Write { lines, step: 0, jitter: 0 };
    let acts =
        [at_once(72), Act::Stall { millis: 1498 }, Act::ClockBack { seconds: 2 }, at_once(1), Act::Rotate, at_once(53)];
    let small = SpoolLimits { memory_per_stream: 2000, memory: 4000, disk: 4000, ..SpoolLimits::default() };
    let (_, heard, _) = run(&begun(acts.into()), &[Habit::default()], small, 50);
    assert!(!heard[0].gaps.is_empty());
}

#[test]
fn a_log_that_goes_with_its_container_was_read_to_its_end_by_a_follow_that_kept_up() {
    let acts = [WRITE, Act::Sleep { millis: 2000 }, Act::Delete, WRITE];
    let habits = [Habit::default(), Habit { late: 300, ..Habit::default() }];
    let (written, heard, _) = run(&acts, &habits, SpoolLimits::default(), 1000);
    assert!(heard.iter().all(|heard| heard.items.len() == written && heard.gaps.is_empty()), "{heard:?}");
}

#[test]
fn a_log_that_goes_with_its_container_is_kept_for_a_watcher_that_is_away() {
    let acts = [WRITE, Act::Sleep { millis: 500 }, WRITE, Act::Sleep { millis: 2000 }, Act::Delete, WRITE];
    let away = Habit { lets_go: Some(1), away: 50_000, ..Habit::default() };
    let (written, heard, _) = run(&acts, &[away], SpoolLimits::default(), 1000);
    assert!(heard[0].items.len() == written && heard[0].gaps.is_empty(), "{heard:?}");
}

#[test]
fn a_log_that_goes_with_its_container_while_nobody_reads_is_marked() {
    let acts = [WRITE, Act::Sleep { millis: 2000 }, Act::Delete, WRITE, Act::Cut];
    let late = Habit { late: 600_000, ..Habit::default() };
    let (_, heard, _) = run(&acts, &[late], SpoolLimits::default(), 1000);
    assert_eq!(heard[0].gaps.len(), 1);
    assert_eq!(heard[0].gaps[0].reason, GapReason::PodDeleted);
}

#[test]
fn what_the_kubelet_says_of_a_file_that_it_cannot_read_is_no_line_and_no_end() {
    let pause = || Act::Sleep { millis: 1000 };
    for answers in 1..3 {
        let refuse = || Act::Refuse { answers };
        for acts in [
            // Before the file is there.
            vec![refuse(), WRITE, pause(), WRITE],
            // When it is opened again.
            vec![WRITE, pause(), refuse(), Act::Cut, WRITE, pause(), WRITE],
            // In the midst of its lines, and of those of the last read.
            vec![WRITE, pause(), Act::ToldCut, WRITE, Act::Sleep { millis: 3000 }, WRITE, Act::ToldCut, refuse()],
            // In the last read.
            vec![WRITE, pause(), WRITE, refuse()],
        ] {
            let habits = [Habit::default(), Habit { late: 300, lets_go: Some(1), away: 2000, ..Habit::default() }];
            let (written, heard, _) = run(&acts, &habits, SpoolLimits::default(), 1000);
            assert!(heard.iter().all(|heard| heard.items.len() == written && heard.gaps.is_empty()), "{heard:?}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_any_more_is_marked() {
    // The follow is cut off, and nothing is said any more but that.
    let acts = [WRITE, Act::Sleep { millis: 2000 }, Act::Cut, Act::Refuse { answers: 1000 }, WRITE];
    let (_, heard, kubelet) = run(&acts, &[Habit::default()], SpoolLimits::default(), 1000);
    assert_eq!((heard[0].items.iter().flatten().count(), heard[0].gaps.len()), (50, 1), "{heard:?}");
    assert_eq!(heard[0].gaps[0].reason, GapReason::PodDeleted);
    // It is not asked for ever.
    assert!(kubelet.state.lock().unwrap().requests < 20);
}

/// What is heard of a container that has written everything before it is followed, and whose pod goes with its end.
fn short_life(lines: i64, padding: usize, nature: &Nature) -> Heard {
    runtime().block_on(async {
        let kubelet = Kubelet::new(1000);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let spool = Spool::new(SpoolLimits::default(), tasks.clone());
        let logs = Logs::from_source(Arc::new(Arc::clone(&kubelet)), None, spool, &tasks, &stop);
        let of = |stands, presence| View { nature: nature.clone(), presence, ..View::clone(&view(stands, 0, None)) };
        let (sender, receiver) = watch::channel(Arc::new(of(Stands::Runs, Presence::Present)));
        kubelet.change(|state| {
            let padding = ".".repeat(padding);
            state.files()[0].extend((0..lines).map(|number| (BASE - S + number, format!("{number}{padding}"))));
        });
        let ending = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            kubelet.change(|state| (state.ended, state.is_deleted) = (true, true));
            let finished = Stands::Ended(BASE + kubelet.elapsed());
            for presence in [Presence::Present, Presence::Gone] {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sender.send_replace(Arc::new(of(finished, presence)));
            }
        };
        futures::future::join(hear(logs, receiver, Habit::default()), ending).await.0
    })
}

#[test]
fn of_a_job_that_ends_at_once_nothing_is_missing_that_the_follow_has_brought() {
    for lines in [0, 1, 300] {
        let heard = short_life(lines, 10, &Nature::Part);
        assert_eq!(heard.items.len(), usize::try_from(lines).unwrap(), "{heard:?}");
        assert!(heard.gaps.is_empty(), "{heard:?}");
    }
    // So much may have been rotated, and of other pods the log is still there to be looked at.
    for heard in [short_life(300, 100, &Nature::Part), short_life(1, 10, &Nature::Pod)] {
        assert_eq!(heard.gaps.len(), 1, "{heard:?}");
        assert_eq!(heard.gaps[0].reason, GapReason::PodDeleted);
    }
}

/// A log group that has what the container has written, in the records of a shipper.
struct Shipped(Arc<Kubelet>);

#[async_trait::async_trait]
impl LogGroup for Shipped {
    fn name(&self) -> &'static str {
        "/a/group"
    }

    async fn find(&self, _: &ShippedContainer) -> Result<Vec<String>, LogGroupError> {
        Ok(vec!["s".to_owned()])
    }

    async fn page(&self, _: &str, from: Option<i64>, next: Option<&str>) -> Result<ShippedPage, LogGroupError> {
        let lines: Vec<_> = self.0.change(|state| state.files().iter().flatten().cloned().collect());
        let events = lines.into_iter().map(|(nanos, log)| {
            let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            let record = serde_json::json!({ "time": format!("{time:.9}"), "stream": "stdout", "_p": "F", "log": log });
            ShippedEvent { millis: nanos / 1_000_000, message: record.to_string() }
        });
        let all: Vec<_> = events.filter(|event| from.is_none_or(|from| event.millis >= from)).collect();
        let had: usize = next.map_or(0, |next| next.parse().unwrap());
        Ok(ShippedPage { events: all[had..].to_vec(), next: Some(all.len().to_string()), is_last: had == all.len() })
    }
}

#[test]
fn what_was_not_read_before_the_pod_was_gone_comes_from_where_it_was_shipped_and_each_line_once() {
    let habits = [
        Habit::default(),
        Habit { late: 5_000, ..Habit::default() },
        Habit { late: 200_000, ..Habit::default() },
        Habit { lets_go: Some(1), away: 200, ..Habit::default() },
    ];
    let heard = runtime().block_on(async {
        let kubelet = Kubelet::new(1000);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let spool = Spool::new(SpoolLimits::default(), tasks.clone());
        let group: Arc<dyn LogGroup> = Arc::new(Shipped(Arc::clone(&kubelet)));
        let logs = Logs::from_source(Arc::new(Arc::clone(&kubelet)), Some(group), spool, &tasks, &stop);
        let of = |stands, presence| View { nature: Nature::Part, presence, ..View::clone(&view(stands, 0, None)) };
        let (sender, receiver) = watch::channel(Arc::new(of(Stands::Runs, Presence::Present)));
        let write = |lines: std::ops::Range<i64>| {
            let lines = lines.map(|number| (BASE - S + number * 300_017, number.to_string()));
            kubelet.change(|state| state.files()[0].extend(lines));
        };
        write(0..100);
        let ending = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // The follow is cut off, and cannot be opened again.
            kubelet.change(|state| (state.cuts, state.refusals) = (state.cuts + 1, 1000));
            write(100..200);
            tokio::time::sleep(Duration::from_millis(100)).await;
            kubelet.change(|state| (state.ended, state.is_deleted) = (true, true));
            sender.send_replace(Arc::new(of(Stands::Ended(BASE + kubelet.elapsed()), Presence::Gone)));
        };
        let hearing = habits.iter().map(|habit| hear(Arc::clone(&logs), receiver.clone(), *habit));
        futures::future::join(futures::future::join_all(hearing), ending).await.0
    });
    for (heard, habit) in heard.iter().zip(habits) {
        assert_eq!(heard.items, (0..200).map(Some).collect::<Vec<_>>(), "{habit:?}");
        assert!(heard.notices.iter().all(|code| *code == "LINES_FROM_LOG_GROUP"), "{:?}", heard.notices);
        assert!(!heard.notices.is_empty(), "{habit:?}");
    }
}

#[test]
fn a_follow_that_went_silent_for_good_is_made_up_for_at_the_end_of_its_container() {
    let acts = [WRITE, Act::Sleep { millis: 2000 }, Act::Silence, WRITE, Act::Sleep { millis: 2000 }, WRITE];
    let habits = [Habit::default(), Habit { late: 300, ..Habit::default() }];
    let (written, heard, _) = run(&acts, &habits, SpoolLimits::default(), 1000);
    assert!(heard.iter().all(|heard| heard.items.len() == written && heard.gaps.is_empty()), "{heard:?}");
}

#[test]
fn a_read_of_the_file_that_went_silent_is_made_again_before_its_watch_gives_it_up() {
    let round = || [WRITE, Act::Sleep { millis: 1000 }];
    let mut acts: Vec<_> = (0..10).flat_map(|_| round()).collect();
    // Who comes then stands before what is held, and reads the file by himself.
    let (blocked, meanwhile) = (Act::Stall { millis: 4000 }, Act::Sleep { millis: 2000 });
    acts.extend([blocked, meanwhile, Act::Silence, Act::Sleep { millis: 4000 }]);
    acts.extend((0..4).flat_map(|_| round()));
    let small = SpoolLimits { memory_per_stream: 2000, memory: 4000, ..SpoolLimits::default() };
    let late = Habit { late: 16_000, ..Habit::default() };
    let (_, heard, _) = run(&acts, &[Habit::default(), late], small, 1000);
    assert!(heard.iter().all(|heard| heard.gaps.is_empty()), "{heard:?}");
    assert!(heard[1].took < Duration::from_secs(45), "{:?}", heard[1].took);
}

#[test]
fn each_run_of_a_container_that_is_restarted_is_read_for_itself() {
    let restart = Act::Restart { millis: 2000 };
    let pause = Act::Sleep { millis: 1000 };
    let acts = [WRITE, pause.clone(), restart.clone(), WRITE, WRITE, Act::Cut, pause, restart, WRITE];
    let of = |run| Habit { run, ..Habit::default() };
    let late = Habit { late: 60_000, ..Habit::default() };
    let (_, heard, _) = run(&acts, &[of(0), of(1), of(2), of(3), late], SpoolLimits::default(), 1000);
    let lines: Vec<_> = heard.iter().map(|heard| heard.items.iter().flatten().count()).collect();
    assert_eq!(lines, [50, 100, 50, 0, 0]);
    assert!(heard[..4].iter().all(|heard| heard.gaps.is_empty()), "{heard:?}");
    // Of three runs the node keeps two.
    assert_eq!(heard[4].gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(), [GapReason::Rotated]);
}

#[test]
fn who_has_had_a_part_of_the_first_lines_is_not_behind_the_beginning_of_another_file() {
    let at_once = |lines| Act::Write { lines, step: 0, jitter: 0 };
    let acts = [Act::Stall { millis: 7028 }, Act::Rotate, at_once(2), Act::Rotate, at_once(1)];
    let habit = Habit { late: 1498, slow: 9, lets_go: Some(1), ..Habit::default() };
    run(&begun(acts.into()), &[habit], SpoolLimits::default(), 50);
}

#[test]
fn a_file_whose_lines_have_all_one_time_is_not_handed_on_twice() {
    let at_once = |lines| Act::Write { lines, step: 0, jitter: 0 };
    for back in [vec![], vec![Act::ClockBack { seconds: 3600 }]] {
        let mut acts = vec![at_once(1), Act::Stall { millis: 4500 }, Act::Rotate, at_once(1)];
        acts.extend(back);
        acts.extend([Act::Rotate, at_once(2)]);
        run(&begun(acts), &[Habit::default()], SpoolLimits::default(), 50);
    }
}
