//! Plays what happens to a container, a kubelet and a network to watchers.

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::carrier::Carrier;
use super::kubelet::{BASE, CutKind, Kubelet, S};
use super::*;
use crate::execution::{ContainerRole, Gap, LogLine, PolicyDefaults, PolicyRequest};

/// What happens to the container and to those who read its log.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Lines, each so many nanoseconds after the one before; every third one is stamped a little early if asked for.
    Write {
        lines: u16,
        step: i64,
        jitter: i64,
    },
    Sleep {
        millis: u64,
    },
    Rotate,
    /// Back, or forward with less than 0.
    ClockBack {
        seconds: i64,
    },
    /// The kubelet's writes to its readers block.
    Stall {
        millis: u64,
    },
    /// Every open answer breaks off, in the middle of a line.
    Cut,
    /// Every open follow ends, as if the container had.
    CleanCut,
    /// Every open answer ends with the kubelet's error in place of further lines.
    ToldCut,
    /// So many answers that are asked for next are nothing but such an error.
    Refuse {
        answers: u64,
    },
    /// Every open answer goes silent and stays open, as behind a firewall that has forgotten the connection.
    Silence,
    /// The container ends, and is started again so much later.
    Restart {
        millis: u64,
    },
    /// The pod is deleted; the container has its grace.
    Delete,
}

/// Half a second of a container that writes.
pub(super) const WRITE: Act = Act::Write { lines: 50, step: 10_000_000, jitter: 0 };

/// A position to go on from, and a kubelet that was seen at the end of its file: before that nobody can tell what was rotated.
pub(super) fn begun(acts: Vec<Act>) -> Vec<Act> {
    [WRITE, Act::Sleep { millis: 1000 }].into_iter().chain(acts).collect()
}

/// How the container stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stands {
    Runs,
    Waits,
    Ended(i64),
}

/// The view of a pod whose container was restarted so often. `last` is when the run before ended.
pub(super) fn view(stands: Stands, restarts: u32, last: Option<i64>) -> Arc<View> {
    let policies = PolicyRequest::default().resolve(&PolicyDefaults::default()).unwrap();
    let ended = |nanos: i64| {
        let time = Timestamp::from_second(nanos / S).unwrap().to_string();
        json!({ "terminated": { "exitCode": 1, "startedAt": "2026-11-21T08:00:00Z", "finishedAt": time } })
    };
    let state = match stands {
        Stands::Runs => json!({ "running": { "startedAt": "2026-11-21T08:00:00Z" } }),
        Stands::Waits => json!({ "waiting": { "reason": "CrashLoopBackOff" } }),
        Stands::Ended(nanos) => ended(nanos),
    };
    let last = last.map_or(json!({}), ended);
    let pod: Carrier = serde_json::from_value(json!({
        "metadata": {
            "name": "x-1", "namespace": "n", "uid": "u", "resourceVersion": "7",
            "labels": { "podbroker.io/tenant": "default", "podbroker.io/attempt": "1" },
            "annotations": {
                "podbroker.io/execution-id": "x",
                "podbroker.io/submit-before": "2026-11-21T08:10:00Z",
                "podbroker.io/labels": "{}",
                "podbroker.io/policies": serde_json::to_string(&policies).unwrap(),
            },
        },
        "spec": { "nodeName": "node1", "restartPolicy": "Never", "containers": [{ "name": "base" }] },
        "status": { "phase": "Running", "containerStatuses": [{
            "name": "base", "state": state, "lastState": last, "restartCount": restarts,
            "image": "", "imageID": "", "ready": false,
        }] },
    }))
    .unwrap();
    Arc::new(View::of(&pod).unwrap())
}

fn instance(restart: u32) -> Instance {
    Instance { attempt: 1, container: "base".to_owned(), restart, role: ContainerRole::Deciding }
}

/// How somebody watches.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Habit {
    /// Joins so late.
    pub(super) late: u64,
    /// Sleeps so long after each item, in milliseconds.
    pub(super) slow: u64,
    /// Lets go after so many items, and goes on from the middle of the last.
    pub(super) lets_go: Option<usize>,
    /// And is back so long after that.
    pub(super) away: u64,
    /// Which run of the container it reads.
    pub(super) run: u32,
}

#[derive(Debug, Default)]
pub(super) struct Heard {
    /// A line's number, or nothing for a gap.
    pub(super) items: Vec<Option<usize>>,
    pub(super) gaps: Vec<Gap>,
    pub(super) notices: Vec<&'static str>,
    /// How long it took from the beginning of the play.
    pub(super) took: Duration,
}

pub(super) async fn hear(logs: Arc<Logs>, mut view: watch::Receiver<Arc<View>>, habit: Habit) -> Heard {
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(habit.late)).await;
    let mut heard = Heard::default();
    let has_begun = |view: &Arc<View>| view.containers.iter().any(|container| container.restarts >= habit.run);
    if view.wait_for(has_begun).await.is_err() {
        return heard;
    }
    let mut position = InstancePosition::default();
    loop {
        let start = LogStart { position, tail_lines: None, since: None, mode: ReadMode::Follow };
        let mut items = Box::pin(logs.read(view.clone(), instance(habit.run), start, CancellationToken::new()));
        let mut left = habit.lets_go.unwrap_or(usize::MAX);
        while left > 0 {
            match items.next().await.expect("the stream ends with an end") {
                LogItem::Lines { lines, before, after } => {
                    // A gap alone moves no position: who goes on from before it is told of it again.
                    left -= 1;
                    // Who lets go has dealt with half of the last message only.
                    let had = if left == 0 { lines.len().div_ceil(2) } else { lines.len() };
                    position = after;
                    if had < lines.len() {
                        position = InstancePosition { skip: before.skip + u32::try_from(had).unwrap(), ..before };
                    }
                    heard.items.extend(lines[..had].iter().map(|line| Some(number(line))));
                }
                LogItem::Gap(gap) => {
                    heard.items.push(None);
                    heard.gaps.push(gap);
                }
                LogItem::Notice(notice) => heard.notices.push(notice.code),
                LogItem::End(_) => {
                    heard.took = began.elapsed();
                    return heard;
                }
            }
            tokio::time::sleep(Duration::from_millis(habit.slow)).await;
        }
        drop(items);
        tokio::time::sleep(Duration::from_millis(habit.away)).await;
    }
}

/// Some lines of the container begin as the kubelet's errors do.
const LIKE_AN_ERROR: &str = "unable to retrieve container logs for ";

pub(super) fn number(line: &LogLine) -> usize {
    let text = std::str::from_utf8(&line.content).unwrap();
    text.strip_prefix(LIKE_AN_ERROR).unwrap_or(text).trim_end_matches('.').parse().unwrap()
}

/// Plays the acts to watchers; returns how many lines each run of the container has written, and what each watcher heard.
#[expect(clippy::too_many_lines, reason = "one arm for each act")]
pub(super) async fn play(
    acts: &[Act],
    habits: &[Habit],
    limits: SpoolLimits,
    piece: usize,
) -> (Vec<usize>, Vec<Heard>, Arc<Kubelet>) {
    let kubelet = Kubelet::new(piece);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let spool = Spool::new(limits, tasks.clone());
    let logs = Logs::from_source(Arc::new(Arc::clone(&kubelet)), None, Arc::clone(&spool), &tasks, &stop);
    let (view_sender, receiver) = watch::channel(view(Stands::Runs, 0, None));
    let hearing =
        futures::future::join_all(habits.iter().map(|habit| hear(Arc::clone(&logs), receiver.clone(), *habit)));
    let writing = async {
        let (mut written, mut clock, mut rotated) = (vec![0], 0, Instant::now());
        let (mut restarts, mut last, mut is_deleted) = (0, None, false);
        // A clean cut within the last seconds cannot be told from the end of the container.
        let was_cut_cleanly = acts.iter().any(|act| matches!(act, Act::CleanCut));
        let before_the_end = Duration::from_millis(if was_cut_cleanly { 5000 } else { 200 });
        for act in acts {
            match *act {
                Act::Write { lines, step, jitter } => {
                    // Some at a time, since the clock moves by milliseconds only.
                    let numbers: Vec<_> = (0..lines).collect();
                    let at_a_time = if step == 0 { numbers.len() } else { usize::try_from(2_000_000 / step).unwrap() };
                    for some in numbers.chunks(at_a_time.max(1)) {
                        tokio::time::sleep(Duration::from_nanos(u64::try_from(step).unwrap() * some.len() as u64))
                            .await;
                        let now = BASE + kubelet.elapsed() + clock;
                        kubelet.change(|state| {
                            for number in some {
                                let early = if number % 3 == 2 { jitter } else { 0 };
                                let nanos = now - step * i64::from(some[some.len() - 1] - number) - early;
                                let padding = ".".repeat(usize::from(number % 40));
                                let like = if number % 40 == 39 { LIKE_AN_ERROR } else { "" };
                                let written = written.last_mut().unwrap();
                                state.files().last_mut().unwrap().push((nanos, format!("{like}{written}{padding}")));
                                *written += 1;
                            }
                        });
                    }
                }
                Act::Sleep { millis } => tokio::time::sleep(Duration::from_millis(millis)).await,
                Act::Rotate => {
                    // No kubelet looks more often.
                    tokio::time::sleep_until(rotated + Duration::from_secs(3)).await;
                    rotated = Instant::now();
                    kubelet.change(|state| {
                        let files = state.files();
                        if !files.last().unwrap().is_empty() {
                            files.push(vec![]);
                        }
                    });
                }
                Act::ClockBack { seconds } => clock -= seconds * S,
                Act::Stall { millis } => {
                    kubelet.change(|state| state.stalled_until = Instant::now() + Duration::from_millis(millis));
                }
                Act::Delete => {
                    is_deleted = true;
                    kubelet.change(|state| state.is_deleted = true);
                }
                Act::Silence => kubelet.change(|state| state.silences += 1),
                // Nothing is started again of a pod that was deleted.
                Act::Restart { .. } if is_deleted => {}
                Act::Restart { millis } => {
                    tokio::time::sleep(before_the_end).await;
                    last = Some(BASE + kubelet.elapsed() + clock);
                    kubelet.change(|state| state.ended = true);
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    view_sender.send_replace(view(Stands::Waits, restarts, last));
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    restarts += 1;
                    written.push(0);
                    kubelet.change(|state| {
                        state.restart();
                        // Each run begins with somebody who can read it.
                        state.stalled_until = Instant::now();
                    });
                    view_sender.send_replace(view(Stands::Runs, restarts, last));
                }
                Act::Refuse { answers } => kubelet.change(|state| state.refusals = answers.max(state.refusals)),
                Act::Cut | Act::CleanCut | Act::ToldCut => {
                    kubelet.change(|state| {
                        state.cuts += 1;
                        state.cut = match act {
                            Act::CleanCut => CutKind::Clean,
                            Act::ToldCut => CutKind::Told,
                            _ => CutKind::Error,
                        };
                    });
                }
            }
        }
        tokio::time::sleep(before_the_end).await;
        let finished = BASE + kubelet.elapsed() + clock;
        kubelet.change(|state| state.ended = true);
        tokio::time::sleep(Duration::from_millis(300)).await;
        view_sender.send_replace(view(Stands::Ended(finished), restarts, last));
        // Nobody waits any more for a run that there never was.
        drop(view_sender);
        written
    };
    let all = async { futures::future::join(writing, hearing).await };
    let (written, heard) = tokio::time::timeout(Duration::from_hours(24), all).await.expect("every watch ends");
    // Nothing is kept for nobody.
    tasks.close();
    tokio::time::timeout(2 * LINGER, tasks.wait()).await.expect("every stream is closed");
    drop(logs);
    let used = spool.used();
    assert_eq!((used.streams, used.memory, used.disk), (0, 0, 0));
    (written, heard, kubelet)
}

/// What is missing stands where a gap is, and nothing comes twice or out of order.
pub(super) fn assert_honest(written: usize, heard: &Heard, habit: Habit) {
    // Nobody can see that there was a file before the first one that is read.
    let (mut next, mut excused) = (0, habit.late > 0);
    for item in &heard.items {
        match item {
            None => excused = true,
            Some(number) => {
                assert!(*number >= next, "line {number} came after line {next}: {:?}", heard.gaps);
                assert!(
                    excused || *number == next,
                    "lines {next} to {number} are missing without a gap: {:?}",
                    heard.gaps
                );
                (next, excused) = (number + 1, false);
            }
        }
    }
    assert!(
        excused || next == written,
        "lines {next} to {written} are missing at the end without a gap: {:?}",
        heard.gaps
    );
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

pub(super) fn run(
    acts: &[Act],
    habits: &[Habit],
    limits: SpoolLimits,
    piece: usize,
) -> (usize, Vec<Heard>, Arc<Kubelet>) {
    let (written, heard, kubelet) = runtime().block_on(play(acts, habits, limits, piece));
    for (heard, habit) in heard.iter().zip(habits) {
        let run = usize::try_from(habit.run).unwrap();
        assert_honest(written.get(run).copied().unwrap_or_default(), heard, *habit);
    }
    (written[0], heard, kubelet)
}
