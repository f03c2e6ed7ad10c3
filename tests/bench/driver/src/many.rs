//! Follows many executions over a few connections, as triggerers do.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use podbroker_client::{Client, Error, Followed, Follower, Settings, WatchMany, proto};
use proto::ExecutionState;
use proto::event::Event;
use serde::{Deserialize, Serialize};

use crate::{Failure, now, say_ready, told_to_end};

#[derive(clap::Args)]
pub(crate) struct Follow {
    #[arg(long)]
    address: String,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Each execution is followed over so many of the connections
    #[arg(long, default_value_t = 1)]
    watchers: usize,
    /// What `submit --names` wrote
    #[arg(long)]
    names: PathBuf,
}

#[derive(Deserialize)]
struct Name {
    name: String,
    pod: String,
}

/// When ends were told.
#[derive(Serialize)]
pub(crate) struct Report {
    /// By pod: when the first watcher was told that it is ending, nanoseconds since 1970.
    ends: HashMap<String, i64>,
    /// Ends that were told, over all watchers.
    told: usize,
    errors: Vec<String>,
}

impl Follow {
    pub(crate) async fn run(self) -> Result<Report, Failure> {
        let file = BufReader::new(fs::File::open(&self.names)?);
        let names: Vec<Name> =
            file.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect::<Result<_, Failure>>()?;
        let pods: HashMap<&str, &str> = names.iter().map(|one| (one.name.as_str(), one.pod.as_str())).collect();
        let mut streams = FuturesUnordered::new();
        let mut adding = FuturesUnordered::new();
        for connection in 0..self.connections {
            // A client of its own has connections of its own.
            let client = Client::new(Settings::new(self.address.as_str()))?;
            let (follower, watch) = client.watch_many();
            let share = names.iter().enumerate().filter(|(number, _)| {
                (connection + self.connections - number % self.connections) % self.connections < self.watchers
            });
            let share: Vec<String> = share.map(|(_, one)| one.name.clone()).collect();
            adding.push(add(follower, share));
            streams.push(next(watch, connection));
        }
        let mut waiting: HashSet<(usize, String)> = HashSet::new();
        let expected = names.len() * self.watchers;
        let mut report = Report { ends: HashMap::new(), told: 0, errors: Vec::new() };
        let mut followers = Vec::new();
        let mut end = std::pin::pin!(told_to_end());
        loop {
            tokio::select! {
                told = &mut end => {
                    told?;
                    return Ok(report);
                }
                // Kept, so that a stream whose executions have all ended stays open.
                Some(follower) = adding.next() => followers.push(follower),
                Some((watch, connection, item)) = streams.next() => {
                    let Some(item) = item else { continue };
                    streams.push(next(watch, connection));
                    let moment = now();
                    match item {
                        Ok(Followed { name, event: Ok(event) }) => {
                            if is_over(&event)
                                && let Some(pod) = pods.get(name.as_str())
                            {
                                report.ends.entry((*pod).to_owned()).or_insert(moment);
                            }
                            report.told += usize::from(matches!(event.event, Some(Event::End(_))));
                            if waiting.len() < expected && waiting.insert((connection, name)) && waiting.len() == expected {
                                say_ready()?;
                            }
                        }
                        Ok(Followed { name, event: Err(error) }) => report.errors.push(format!("{name}: {error}")),
                        Err(error) => report.errors.push(error.to_string()),
                    }
                }
            }
        }
    }
}

/// Whether this says that the execution is over; the end itself may be the first word of it.
fn is_over(event: &proto::Event) -> bool {
    match &event.event {
        Some(Event::StateChanged(changed)) => {
            changed.execution.as_ref().is_some_and(|execution| execution.state() == ExecutionState::Ending)
        }
        Some(Event::End(_)) => true,
        _ => false,
    }
}

async fn add(follower: Follower, names: Vec<String>) -> Follower {
    for name in names {
        let options = proto::WatchOptions { logs: proto::LogMode::None.into(), ..Default::default() };
        follower.add(proto::WatchExecutionRequest { name, options: Some(options), ..Default::default() }).await;
    }
    follower
}

async fn next(mut watch: WatchMany, connection: usize) -> (WatchMany, usize, Option<Result<Followed, Error>>) {
    let item = watch.next().await;
    (watch, connection, item)
}
