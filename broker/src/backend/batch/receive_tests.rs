use std::collections::VecDeque;

use BatchEvent::{End, Foreign, Malformed, NoEnd, Unfollowed};

use super::*;
use crate::backend::batch::calls::{Failed as CallFailed, Operation};
use crate::backend::batch::changes::Changes;
use crate::backend::batch::describe::Describe;
use crate::backend::batch::event::event_for_tests;
use crate::backend::job::Job;
use crate::identity::eks::Happened;

/// A queue as a script: what each request for messages leads to. At its end nothing comes any more.
#[derive(Default)]
struct Script {
    rounds: Mutex<VecDeque<Result<Vec<String>, BatchFailure>>>,
    refuses_deletion: Mutex<u32>,
    received: Mutex<Vec<Instant>>,
    deleted: Mutex<Vec<String>>,
}

impl Script {
    fn of(rounds: impl IntoIterator<Item = Result<Vec<String>, BatchFailure>>) -> Self {
        Self { rounds: Mutex::new(rounds.into_iter().collect()), ..Self::default() }
    }

    /// How long each of the requests for messages came after the one before.
    fn gaps(&self) -> Vec<u64> {
        lock(&self.received).windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
    }
}

#[async_trait]
impl Queue for Script {
    async fn receive(&self) -> Result<Vec<Received>, Failed> {
        lock(&self.received).push(Instant::now());
        let round = lock(&self.rounds).pop_front();
        match round {
            Some(Ok(bodies)) => {
                let message = |body: String| Received { handle: format!("h:{body}"), body };
                Ok(bodies.into_iter().map(message).collect())
            }
            Some(Err(failure)) => Err(Failed { operation: "ReceiveMessage", failure }),
            None => {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Ok(Vec::new())
            }
        }
    }

    async fn delete(&self, handles: &[String]) -> Result<(), Failed> {
        let left = lock(&self.refuses_deletion).checked_sub(1);
        if let Some(left) = left {
            *lock(&self.refuses_deletion) = left;
            return Err(Failed { operation: "DeleteMessageBatch", failure: refused() });
        }
        lock(&self.deleted).extend_from_slice(handles);
        Ok(())
    }
}

fn refused() -> BatchFailure {
    BatchFailure::Refused { code: "AccessDenied".to_owned(), said: "no".to_owned() }
}

fn away() -> BatchFailure {
    BatchFailure::Away("gone".to_owned())
}

/// AWS Batch, which remembers what it was asked, and knows no job.
#[derive(Default)]
struct Asked(Mutex<Vec<Vec<String>>>);

#[async_trait]
impl Describe for Asked {
    async fn describe(&self, ids: &[String]) -> Result<Vec<Job>, CallFailed> {
        lock(&self.0).push(ids.to_vec());
        let failure = BatchFailure::Away("not of interest here".to_owned());
        Err(CallFailed { operation: Operation::DescribeJobs, failure, happened: Happened::No })
    }
}

fn receiver(describers: &[&Arc<Describer>]) -> Receiver {
    let queue = EventsQueue {
        url: "https://sqs.us-east-1.amazonaws.com/111122223333/events".to_owned(),
        account: "111122223333".to_owned(),
        name: "events".to_owned(),
    };
    let receiver = Receiver::new(&queue, "us-east-1", BatchCounters::default());
    for describer in describers {
        receiver.join(describer);
    }
    receiver
}

async fn run(receiver: &Receiver, queue: &Script, time: Duration) {
    let stop = CancellationToken::new();
    let _ =
        tokio::time::timeout(time, receiver.run(queue, &|failed| format!("mend {}", failed.operation), &stop)).await;
}

fn text(job: &str, status: &str) -> String {
    event_for_tests(job, status).to_string()
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_followed_job_is_looked_into_and_every_message_is_deleted() {
    let (one, other) = (Arc::new(Describer::new()), Arc::new(Describer::new()));
    other.follow("job-1", &Arc::<Changes>::default());
    let receiver = receiver(&[&one, &other, &one]);
    let mut elsewhere = event_for_tests("job-1", "FAILED");
    elsewhere["region"] = "eu-central-1".into();
    let bodies = vec![
        text("job-1", "FAILED"),
        text("job-1", "RUNNING"),
        text("somebody-else-s", "FAILED"),
        elsewhere.to_string(),
        "hello".to_owned(),
    ];
    let kinds: Vec<_> = bodies.iter().map(|body| receiver.take_in(body)).collect();
    assert_eq!(kinds, [End, NoEnd, Unfollowed, Foreign, Malformed]);

    let queue = Script::of([Ok(bodies.clone())]);
    run(&receiver, &queue, Duration::from_secs(1)).await;
    assert_eq!(*lock(&queue.deleted), bodies.iter().map(|body| format!("h:{body}")).collect::<Vec<_>>());
    assert_eq!(receiver.standing(), Standing::Receives);

    // The job would be due two seconds after it was followed; it is asked about before.
    let (asked, stop) = (Asked::default(), CancellationToken::new());
    let _ = tokio::time::timeout(Duration::from_millis(300), other.run(&asked, &stop)).await;
    assert_eq!(*lock(&asked.0), [["job-1".to_owned()]]);
}

#[tokio::test(start_paused = true)]
async fn while_the_queue_fails_it_is_asked_less_and_less_and_then_as_before() {
    let receiver = receiver(&[]);
    let failures = [away(), refused(), away(), away(), away(), away(), away(), away()];
    let mut rounds: Vec<_> = failures.into_iter().map(Err).collect();
    rounds.push(Ok(vec!["hello".to_owned()]));
    let queue = Script::of(rounds);
    run(&receiver, &queue, Duration::from_millis(1_500)).await;
    let Standing::Fails { what, fix } = receiver.standing() else { panic!() };
    assert_eq!((what.as_str(), fix.as_str()), ("SQS refuses ReceiveMessage: AccessDenied: no", "mend ReceiveMessage"));
    lock(&queue.received).clear();
    run(&receiver, &queue, Duration::from_mins(5)).await;
    assert_eq!(queue.gaps()[..8], [1, 2, 4, 8, 16, 32, 0, 20]);
    assert_eq!(receiver.standing(), Standing::Receives);
    assert_eq!(*lock(&queue.deleted), ["h:hello"]);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_delete_does_not_hear_the_same_without_end() {
    let receiver = receiver(&[]);
    let queue = Script::of((0..100).map(|_| Ok(vec!["hello".to_owned()])));
    *lock(&queue.refuses_deletion) = 100;
    run(&receiver, &queue, Duration::from_mins(5)).await;
    assert!(lock(&queue.received).len() <= 11, "{:?}", queue.gaps());
    assert!(matches!(receiver.standing(), Standing::Fails { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_says_at_once_that_it_is_empty_is_not_asked_without_end() {
    let receiver = receiver(&[]);
    let queue = Script::of((0..1_000).map(|_| Ok(Vec::new())));
    run(&receiver, &queue, Duration::from_secs(10)).await;
    assert!(lock(&queue.received).len() <= 11);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_ends_at_once_while_it_waits_for_messages() {
    let (receiver, queue, stop) = (receiver(&[]), Script::default(), CancellationToken::new());
    let running = receiver.run(&queue, &|_| String::new(), &stop);
    let stopping = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop.cancel();
    };
    let began = Instant::now();
    tokio::join!(running, stopping);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}
