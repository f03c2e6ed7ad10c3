//! Many watches over one stream, for triggerers and schedulers.
//!
//! A [`Follower`] adds and removes executions at any time, as whoever owns the [`WatchMany`] may do itself;
//! [`WatchMany::next`] hands out what happens to all of them.
//! Each execution is resumed as a [`Watch`](crate::Watch) is, and one that the broker cannot follow now is added again
//! later. All work is done inside `next`: there is no task behind it, so a caller that does not read holds the broker back.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Stub;
use crate::connection::{Lane, Lease};
use crate::position::{Position, Verdict};
use crate::proto::watch_executions_request::Request;
use crate::proto::watch_executions_response::Item;
use crate::retry::Backoff;
use crate::watch::{Contact, SILENCE, silent};
use crate::{Client, Error, proto};

/// Commands that wait while `next` is not awaited; the caller of [`Follower::add`] then waits too.
const COMMANDS: usize = 64;

/// Requests that the transport holds; more stay in the outbox, which is as long as the list of what is followed.
const REQUESTS: usize = 64;

/// How many names are remembered whose last messages may still come.
const MAX_REMOVED: usize = 4096;

/// Says what a [`WatchMany`] follows. Clones speak to the same one.
#[derive(Clone, Debug)]
pub struct Follower {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Add(proto::WatchExecutionRequest),
    Remove(String),
}

impl Follower {
    /// Follows one more, to its end. One that is followed already goes on as it does. False: the [`WatchMany`] is gone.
    pub async fn add(&self, request: proto::WatchExecutionRequest) -> bool {
        self.commands.send(Command::Add(request)).await.is_ok()
    }

    /// Follows this one no longer. False: the [`WatchMany`] is gone.
    pub async fn remove(&self, name: impl Into<String>) -> bool {
        self.commands.send(Command::Remove(name.into())).await.is_ok()
    }
}

/// What happened to one of the executions.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    /// Its name.
    pub name: String,
    /// The next event. After END and after an error it is followed no longer.
    pub event: Result<proto::Event, Error>,
}

/// The events of many executions. See [`Client::watch_many`].
#[must_use = "nothing is followed until `next` is awaited"]
pub struct WatchMany {
    client: Client,
    commands: Option<mpsc::Receiver<Command>>,
    members: HashMap<String, Member>,
    /// Members that the broker could not follow, by the time at which they are added again.
    waiting: BTreeSet<(Instant, String)>,
    /// What this stream was not told yet.
    outbox: VecDeque<Request>,
    /// Events of these may still be on their way, so they cannot be added again to this stream.
    removed: HashSet<String>,
    contact: Contact,
    phase: Phase,
}

struct Member {
    position: Position,
    backoff: Backoff,
    again_at: Option<Instant>,
}

enum Phase {
    /// There was nothing to follow.
    Idle,
    Waiting(Instant),
    Opening(BoxFuture<'static, Result<Box<Open>, Error>>),
    Open(Box<Open>),
    Over,
}

struct Open {
    stream: tonic::Streaming<proto::WatchExecutionsResponse>,
    requests: mpsc::Sender<proto::WatchExecutionsRequest>,
    silent_at: Instant,
    _lease: Lease,
}

/// What woke `next` up.
enum Wake {
    Command(Option<Command>),
    /// A member's pause is over.
    Again,
    /// The pause after a failed stream is over.
    Reopen,
    Opened(Box<Open>),
    Sent,
    Message(Box<proto::WatchExecutionsResponse>),
}

impl std::fmt::Debug for WatchMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchMany").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl WatchMany {
    pub(crate) fn new(client: Client) -> (Follower, Self) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let watch = Self {
            client,
            commands: Some(commands),
            members: HashMap::new(),
            waiting: BTreeSet::new(),
            outbox: VecDeque::new(),
            removed: HashSet::new(),
            contact: Contact::default(),
            phase: Phase::Idle,
        };
        (Follower { commands: sender }, watch)
    }

    /// Gives up when the broker could not be reached for so long. Without this it never gives up.
    pub fn retry_for(mut self, limit: Duration) -> Self {
        self.contact.retry_for = Some(limit);
        self
    }

    /// What happened next. `None`: every [`Follower`] is dropped and nothing is followed, or an error was returned, which
    /// ends all of it. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Result<Followed, Error>> {
        loop {
            if matches!(self.phase, Phase::Idle) && !self.members.is_empty() {
                self.open();
            }
            if matches!(self.phase, Phase::Over) || (self.commands.is_none() && self.members.is_empty()) {
                return None;
            }
            let error = match self.wake().await {
                Ok(wake) => match self.handle(wake) {
                    Some(followed) => return Some(Ok(followed)),
                    None => continue,
                },
                Err(error) => error,
            };
            if self.members.is_empty() {
                self.phase = Phase::Idle;
                continue;
            }
            match self.contact.lost(error) {
                Ok(until) => self.phase = Phase::Waiting(until),
                Err(error) => {
                    self.phase = Phase::Over;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Waits for the next thing to deal with. Loses nothing when it is dropped.
    async fn wake(&mut self) -> Result<Wake, Error> {
        let again_at = self.waiting.first().map(|(at, _)| *at);
        let again = async {
            match again_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let command = async {
            match &mut self.commands {
                Some(commands) => commands.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = command => Ok(Wake::Command(command)),
            () = again => Ok(Wake::Again),
            wake = self.phase.wake(&mut self.outbox) => wake,
        }
    }

    fn handle(&mut self, wake: Wake) -> Option<Followed> {
        match wake {
            Wake::Command(Some(Command::Add(request))) => self.add(request),
            Wake::Command(Some(Command::Remove(name))) => self.remove(name),
            Wake::Command(None) => self.commands = None,
            Wake::Again => self.add_again(),
            Wake::Reopen => self.phase = Phase::Idle,
            Wake::Opened(open) => self.phase = Phase::Open(open),
            Wake::Sent => {}
            Wake::Message(message) => return self.take(*message),
        }
        None
    }

    /// Follows one more, as [`Follower::add`] does.
    pub fn add(&mut self, mut request: proto::WatchExecutionRequest) {
        if let Some(options) = &mut request.options {
            // The end of one that is not followed to its end could not be told from its absence.
            options.no_follow = false;
        }
        let name = request.name.clone();
        if self.members.contains_key(&name) {
            return;
        }
        let mut position = Position::new(request);
        if self.removed.contains(&name) {
            self.phase = Phase::Idle;
        } else {
            self.outbox.push_back(Request::Add(position.request()));
        }
        self.members.insert(name, Member { position, backoff: Backoff::default(), again_at: None });
    }

    /// Follows this one no longer, as [`Follower::remove`] does.
    pub fn remove(&mut self, name: String) {
        if let Some(member) = self.members.remove(&name) {
            if let Some(at) = member.again_at {
                self.waiting.remove(&(at, name.clone()));
            }
            self.outbox.push_back(Request::Remove(name.clone()));
            self.removed.insert(name);
            if self.removed.len() >= MAX_REMOVED && matches!(self.phase, Phase::Open(_)) {
                // A new stream has nothing to remember.
                self.phase = Phase::Idle;
            }
        }
    }

    fn add_again(&mut self) {
        let now = Instant::now();
        while let Some((_, name)) = self.waiting.first().filter(|(at, _)| *at <= now).cloned() {
            self.waiting.pop_first();
            if let Some(member) = self.members.get_mut(&name) {
                member.again_at = None;
                self.outbox.push_back(Request::Add(member.position.request()));
            }
        }
    }

    fn open(&mut self) {
        // A new stream knows nothing: it is told of all members, and nothing of what the old one was not told.
        self.removed.clear();
        let members = self.members.values_mut().filter(|member| member.again_at.is_none());
        self.outbox = members.map(|member| Request::Add(member.position.request())).collect();
        let (requests, receiver) = mpsc::channel(REQUESTS);
        // A broker may wait for the first request before it answers.
        while let Some(request) = self.outbox.pop_front() {
            if let Err(refused) = requests.try_send(proto::WatchExecutionsRequest { request: Some(request) }) {
                self.outbox.extend(refused.into_inner().request);
                break;
            }
        }
        let limit = self.contact.limit(self.client.settings().call_timeout);
        let client = self.client.clone();
        self.phase = Phase::Opening(Box::pin(async move {
            let rpc = |mut stub: Stub, request| async move { stub.watch_executions(request).await };
            let (lease, stream) = client.open_once(Lane::Logs, limit, ReceiverStream::new(receiver), rpc).await?;
            Ok(Box::new(Open { stream, requests, silent_at: Instant::now() + SILENCE, _lease: lease }))
        }));
    }

    fn take(&mut self, message: proto::WatchExecutionsResponse) -> Option<Followed> {
        self.contact.made();
        let proto::WatchExecutionsResponse { name, item } = message;
        let Some((member, item)) = self.members.get_mut(&name).zip(item) else {
            self.contact.made_progress();
            return None;
        };
        match item {
            Item::Event(event) => match member.position.take(event) {
                Verdict::Repeated => None,
                Verdict::Alive => {
                    self.contact.made_progress();
                    None
                }
                Verdict::Deliver(event) => {
                    self.contact.made_progress();
                    member.backoff.reset();
                    Some(Followed { name, event: Ok(event) })
                }
                Verdict::DeliverLast(event) => {
                    self.contact.made_progress();
                    self.members.remove(&name);
                    Some(Followed { name, event: Ok(event) })
                }
            },
            Item::Failure(failure) => {
                let error = Error::from_watch_failure(failure);
                if error.is_worth_retrying() {
                    let again_at = Instant::now() + member.backoff.next(error.retry_delay);
                    member.again_at = Some(again_at);
                    self.waiting.insert((again_at, name));
                    return None;
                }
                self.members.remove(&name);
                Some(Followed { name, event: Err(error) })
            }
        }
    }
}

impl Phase {
    async fn wake(&mut self, outbox: &mut VecDeque<Request>) -> Result<Wake, Error> {
        match self {
            Self::Idle | Self::Over => std::future::pending().await,
            Self::Waiting(until) => {
                sleep_until(*until).await;
                Ok(Wake::Reopen)
            }
            Self::Opening(opening) => opening.await.map(Wake::Opened),
            Self::Open(open) => open.wake(outbox).await,
        }
    }
}

impl Open {
    async fn wake(&mut self, outbox: &mut VecDeque<Request>) -> Result<Wake, Error> {
        tokio::select! {
            // A closed channel means a broken stream, which the other branch reports.
            Ok(permit) = self.requests.reserve(), if !outbox.is_empty() => {
                permit.send(proto::WatchExecutionsRequest { request: outbox.pop_front() });
                Ok(Wake::Sent)
            }
            message = timeout_at(self.silent_at, self.stream.message()) => match message {
                Err(_) => Err(silent()),
                Ok(Err(status)) => Err(Error::from_status(&status)),
                Ok(Ok(None)) => Err(Error::disconnected("the broker ended the stream")),
                Ok(Ok(Some(message))) => {
                    self.silent_at = Instant::now() + SILENCE;
                    Ok(Wake::Message(Box::new(message)))
                }
            },
        }
    }
}
