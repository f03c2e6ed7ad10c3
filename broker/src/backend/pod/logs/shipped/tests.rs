//! What is asked of a log group, how long, and what is told of what it answers.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use futures::StreamExt as _;

use super::*;
use crate::backend::log_group::ShippedPage;
use crate::execution::{ContainerRole, GapReason, Instance, Position};

const BEGIN: i64 = 1_795_248_000_000;

/// A log group that answers from a list.
#[derive(Default)]
struct Group {
    /// What is found, one answer after the other; the last one stays.
    streams: Mutex<VecDeque<Result<Vec<String>, LogGroupError>>>,
    /// When events arrive, in seconds from the beginning of the play, and which.
    arrivals: Vec<(u64, &'static str)>,
    /// Reading fails from that second on.
    fails_at: Option<(u64, LogGroupError)>,
    began: Mutex<Option<Instant>>,
    asked: Mutex<Vec<u64>>,
}

impl Group {
    fn of(arrivals: &[(u64, &'static str)]) -> Self {
        let streams = Mutex::new(VecDeque::from([Ok(vec!["s".to_owned()])]));
        Self { streams, arrivals: arrivals.to_vec(), ..Self::default() }
    }

    fn second(&self) -> u64 {
        self.began.lock().unwrap().get_or_insert_with(Instant::now).elapsed().as_secs()
    }
}

#[async_trait]
impl LogGroup for Group {
    fn name(&self) -> &'static str {
        "/a/group"
    }

    async fn find(&self, of: &ShippedContainer) -> Result<Vec<String>, LogGroupError> {
        assert_eq!((of.pod.as_str(), of.container.as_str()), ("aws-batch.x", "main"));
        let second = self.second();
        self.asked.lock().unwrap().push(second);
        let mut streams = self.streams.lock().unwrap();
        if streams.len() > 1 { streams.pop_front().unwrap() } else { streams.front().cloned().unwrap_or(Ok(vec![])) }
    }

    async fn page(&self, stream: &str, from: Option<i64>, next: Option<&str>) -> Result<ShippedPage, LogGroupError> {
        assert_eq!((stream, from), ("s", None));
        let second = self.second();
        self.asked.lock().unwrap().push(second);
        if let Some((_, error)) = self.fails_at.as_ref().filter(|(at, _)| *at <= second) {
            return Err(error.clone());
        }
        let had: usize = next.map_or(0, |next| next.parse().unwrap());
        let there = self.arrivals.iter().filter(|(at, _)| *at <= second).count();
        // Two events are a page.
        let until = there.min(had + 2);
        let events = self.arrivals[had..until].iter().enumerate().map(|(index, (_, text))| ShippedEvent {
            millis: BEGIN + i64::try_from(had + index).unwrap(),
            message: (*text).to_owned(),
        });
        Ok(ShippedPage { events: events.collect(), next: Some(until.to_string()), is_last: until == had })
    }
}

fn wanted() -> Wanted {
    let instance = Instance { attempt: 1, container: "main".to_owned(), restart: 0, role: ContainerRole::Deciding };
    Wanted {
        of: ShippedContainer { pod: "aws-batch.x".to_owned(), node: "n".to_owned(), container: "main".to_owned() },
        position: InstancePosition { position: Position::Start, skip: 0 },
        since: None,
        mode: ReadMode::Follow,
        ended: None,
        now: BEGIN * 1_000_000,
        gap: Gap {
            instance,
            reason: GapReason::PodDeleted,
            after: None,
            before: None,
            lines_at_least: 0,
            message: "the pod was gone".to_owned(),
        },
    }
}

/// What is told, as text.
async fn told(group: &Arc<Group>, wanted: Wanted) -> Vec<String> {
    group.second();
    let items: Vec<_> = read(Arc::clone(group) as Arc<dyn LogGroup>, wanted).collect().await;
    let texts = items.into_iter().flat_map(|item| match item {
        LogItem::Lines { lines, .. } => {
            lines.iter().map(|line| String::from_utf8(line.content.to_vec()).unwrap()).collect()
        }
        LogItem::Gap(gap) => {
            assert_eq!(gap.reason, GapReason::PodDeleted);
            vec![format!("GAP {}", gap.message)]
        }
        LogItem::Notice(notice) => {
            assert!(notice.message.contains("/a/group, stream s"), "{}", notice.message);
            vec![notice.code.to_owned()]
        }
        LogItem::End(completeness) => {
            assert_eq!(completeness, Completeness::Cut, "nothing tells that all of it was shipped");
            vec!["END".to_owned()]
        }
    });
    texts.collect()
}

fn play(group: Group, wanted: Wanted) -> (Vec<String>, Vec<u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let group = Arc::new(group);
    let told = runtime.block_on(told(&group, wanted));
    let asked = group.asked.lock().unwrap().clone();
    (told, asked)
}

#[test]
fn lines_are_told_as_they_arrive_until_none_comes_any_more() {
    let (told, asked) = play(Group::of(&[(0, "a"), (0, "b"), (0, "c"), (9, "d"), (19, "e")]), wanted());
    assert_eq!(told, ["LINES_FROM_LOG_GROUP", "a", "b", "c", "d", "e", "END"]);
    let last = *asked.last().unwrap();
    assert!((31..=36).contains(&last), "{asked:?}");
    assert!(asked.len() < 30, "it is not asked for ever faster: {asked:?}");
}

#[test]
fn what_comes_after_a_long_silence_is_not_waited_for() {
    let (told, _) = play(Group::of(&[(0, "a"), (40, "b")]), wanted());
    assert_eq!(told, ["LINES_FROM_LOG_GROUP", "a", "END"]);
}

#[test]
fn a_stream_that_is_made_late_is_found() {
    let group = Group::of(&[(0, "a")]);
    *group.streams.lock().unwrap() = [Ok(vec![]), Ok(vec![]), Ok(vec!["s".to_owned()])].into();
    assert_eq!(play(group, wanted()).0, ["LINES_FROM_LOG_GROUP", "a", "END"]);
}

#[test]
fn what_ended_long_ago_is_read_without_waiting() {
    let ended = Some((BEGIN - 600_000) * 1_000_000);
    let (told, asked) = play(Group::of(&[(0, "a"), (0, "b"), (0, "c")]), Wanted { ended, ..wanted() });
    assert_eq!(told, ["LINES_FROM_LOG_GROUP", "a", "b", "c", "END"]);
    assert!(asked.iter().all(|second| *second == 0), "{asked:?}");
    let (_, asked) = play(Group::of(&[(5, "a")]), Wanted { mode: ReadMode::SoFar, ..wanted() });
    assert!(asked.iter().all(|second| *second == 0), "who wants what is there now does not wait: {asked:?}");
}

#[test]
fn a_group_without_the_container_is_named_in_the_gap() {
    let (told, asked) = play(Group::default(), wanted());
    assert_eq!(told, ["GAP the pod was gone; the log group /a/group has no stream of it", "END"]);
    assert!((18..=21).contains(asked.last().unwrap()), "{asked:?}");
}

#[test]
fn a_group_that_has_nothing_new_is_named_in_the_gap() {
    let check = crc32fast::hash(b"a");
    let position = Position::At { nanos: BEGIN * 1_000_000, ordinal: 1, check };
    let group = Group::of(&[(0, "a")]);
    let mut wanted = wanted();
    wanted.position = InstancePosition { position, skip: 0 };
    // It asks from that moment on.
    let group = FromThen(group);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let items: Vec<_> = runtime.block_on(read(Arc::new(group), wanted).collect());
    let [LogItem::Gap(gap), LogItem::End(Completeness::Cut)] = &items[..] else { panic!("{items:?}") };
    assert_eq!(gap.message, "the pod was gone; the log group /a/group has nothing more of it in the stream s");
}

/// Checks the moment from which a stream is asked for.
struct FromThen(Group);

#[async_trait]
impl LogGroup for FromThen {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn find(&self, of: &ShippedContainer) -> Result<Vec<String>, LogGroupError> {
        self.0.find(of).await
    }

    async fn page(&self, stream: &str, from: Option<i64>, next: Option<&str>) -> Result<ShippedPage, LogGroupError> {
        assert_eq!(from, Some(BEGIN));
        self.0.page(stream, None, next).await
    }
}

#[test]
fn a_refusal_is_told_at_once_and_a_group_that_is_away_is_asked_again() {
    let refused = Group::default();
    *refused.streams.lock().unwrap() = [Err(LogGroupError::Refused("AccessDenied: no".to_owned()))].into();
    let (told, asked) = play(refused, wanted());
    assert_eq!(told, ["GAP the pod was gone; the log group /a/group cannot be read: AccessDenied: no", "END"]);
    assert_eq!(asked, [0]);
    let away = Group::of(&[(0, "a")]);
    *away.streams.lock().unwrap() = [
        Err(LogGroupError::Away("503".to_owned())),
        Err(LogGroupError::Away("503".to_owned())),
        Ok(vec!["s".to_owned()]),
    ]
    .into();
    assert_eq!(play(away, wanted()).0, ["LINES_FROM_LOG_GROUP", "a", "END"]);
}

#[test]
fn a_reading_that_fails_in_its_midst_is_a_gap_behind_what_was_told() {
    let error = LogGroupError::Refused("AccessDenied: no".to_owned());
    let group = Group { fails_at: Some((5, error)), ..Group::of(&[(0, "a")]) };
    let (told, _) = play(group, wanted());
    assert_eq!(
        told,
        [
            "LINES_FROM_LOG_GROUP",
            "a",
            "GAP the pod was gone; the log group /a/group cannot be read: AccessDenied: no",
            "END"
        ]
    );
}

#[test]
fn two_streams_of_one_container_are_not_guessed_about() {
    let group = Group::default();
    *group.streams.lock().unwrap() = [Ok(vec!["s".to_owned(), "t".to_owned()])].into();
    let (told, asked) = play(group, wanted());
    assert!(told[0].contains("has 2 streams of this container"), "{told:?}");
    assert_eq!((told.len(), asked.len()), (2, 1));
}
