//! Reads lines, and says how fast they came, how late, and whether they were all there.
//!
//! Each line begins with its number, and the numbers of a pod go up by one from 1. So a lost or a doubled line is seen
//! whatever the reader says of itself.

use std::collections::{HashMap, HashSet};

use futures::StreamExt as _;
use futures::stream::SelectAll;
use podbroker_client::{Client, Settings, Watch, proto};
use proto::event::Event;
use serde::Serialize;
use tokio::io::AsyncBufReadExt as _;

use crate::distribution::{Delays, Summary};
use crate::{Failure, now, say_ready, told_to_end};

#[derive(clap::Args)]
pub(crate) struct FromBroker {
    #[arg(long)]
    address: String,
    /// Notes how long after the container runtime's time each line came
    #[arg(long)]
    delays: bool,
    /// Prints `ready` once a line of each execution has come that was written after the start
    #[arg(long)]
    announce: bool,
    /// Names of executions
    names: Vec<String>,
}

#[derive(clap::Args)]
pub(crate) struct Piped {
    /// Each line begins with its time, as with `--timestamps`
    #[arg(long)]
    delays: bool,
}

/// What was read.
#[derive(Serialize)]
pub(crate) struct Report {
    lines: u64,
    /// Numbers that were passed over.
    missing: u64,
    /// Lines whose number had been there.
    doubled: u64,
    /// Lines that the broker said are missing, or at least one for each gap.
    marked: u64,
    /// Nanoseconds since 1970; 0 without a line.
    first: i64,
    last: i64,
    delay: Option<Summary>,
    /// Why watches broke; empty when all was well.
    errors: Vec<String>,
}

#[derive(Default)]
struct Count {
    lines: u64,
    missing: u64,
    doubled: u64,
    marked: u64,
    first: i64,
    last: i64,
    delays: Option<Delays>,
    errors: Vec<String>,
    /// When the reader began, nanoseconds since 1970.
    begin: i64,
    /// The last number of each pod.
    numbers: HashMap<String, u64>,
}

impl FromBroker {
    pub(crate) async fn run(self) -> Result<Report, Failure> {
        let client = Client::new(Settings::new(self.address.as_str()))?;
        let mut count = Count::new(self.delays);
        let mut events: SelectAll<_> = self.names.iter().map(|name| Box::pin(events(&client, name))).collect();
        let mut end = std::pin::pin!(told_to_end());
        let mut behind = self.announce.then(|| self.names.iter().cloned().collect::<HashSet<_>>());
        loop {
            let (name, event) = tokio::select! {
                next = events.next() => match next {
                    Some(next) => next,
                    None => break,
                },
                told = &mut end => {
                    told?;
                    break;
                }
            };
            match event {
                Ok(event) => {
                    if count.take(&name, &event)
                        && let Some(names) = &mut behind
                        && names.remove(&name)
                        && names.is_empty()
                    {
                        say_ready()?;
                    }
                }
                Err(error) => count.errors.push(error.to_string()),
            }
        }
        drop(events);
        Ok(count.report())
    }
}

type Item = (String, Result<proto::Event, podbroker_client::Error>);

fn events(client: &Client, name: &str) -> impl futures::Stream<Item = Item> + use<> {
    let watch = client.watch(proto::WatchExecutionRequest { name: name.to_owned(), ..Default::default() });
    futures::stream::unfold(watch, |mut watch: Watch| async move {
        let event = watch.next().await?;
        Some(((watch.name().to_owned(), event), watch))
    })
}

impl Piped {
    pub(crate) async fn run(self) -> Result<Report, Failure> {
        let mut input = tokio::io::BufReader::with_capacity(1 << 18, tokio::io::stdin());
        let (mut count, mut line) = (Count::new(self.delays), Vec::new());
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line).await? == 0 {
                return Ok(count.report());
            }
            let (time, content) = if self.delays { stamped(&line)? } else { (None, line.as_slice()) };
            let moment = now();
            count.line("", content, moment);
            if let Some(time) = time {
                count.delay(time, moment);
            }
        }
    }
}

impl Count {
    fn new(delays: bool) -> Self {
        Self { delays: delays.then(Delays::default), begin: now(), ..Self::default() }
    }

    /// Whether there was a line that was written after the start.
    fn take(&mut self, name: &str, event: &proto::Event) -> bool {
        let mut is_fresh = false;
        match &event.event {
            Some(Event::LogChunk(chunk)) => {
                let moment = now();
                for line in &chunk.lines {
                    self.line(name, &line.content, moment);
                    is_fresh |= self.delay(line.time_unix_nanos, moment);
                }
            }
            Some(Event::LogGap(gap)) => self.marked += u64::try_from(gap.lines_at_least).unwrap_or(0).max(1),
            _ => {}
        }
        is_fresh
    }

    /// Notes how late a line is, unless it was written before anybody asked for it.
    fn delay(&mut self, written: i64, moment: i64) -> bool {
        let is_fresh = written >= self.begin;
        if is_fresh && let Some(delays) = &mut self.delays {
            delays.push_nanos(moment - written);
        }
        is_fresh
    }

    fn line(&mut self, name: &str, content: &[u8], moment: i64) {
        self.lines += 1;
        if self.first == 0 {
            self.first = moment;
        }
        self.last = moment;
        let number = content.iter().take_while(|byte| byte.is_ascii_digit());
        let number = number.fold(0, |number: u64, digit| number * 10 + u64::from(digit - b'0'));
        let last = match self.numbers.get_mut(name) {
            Some(last) => last,
            None => self.numbers.entry(name.to_owned()).or_default(),
        };
        match number.checked_sub(*last + 1) {
            Some(missing) => {
                self.missing += missing;
                *last = number;
            }
            None => self.doubled += 1,
        }
    }

    fn report(self) -> Report {
        let Self { lines, missing, doubled, marked, first, last, delays, errors, .. } = self;
        let delay = delays.and_then(Delays::summary);
        Report { lines, missing, doubled, marked, first, last, delay, errors }
    }
}

/// Parts a line into its time, `2026-01-02T03:04:05.678901234Z`, and the rest.
fn stamped(line: &[u8]) -> Result<(Option<i64>, &[u8]), Failure> {
    let split = line.iter().position(|byte| *byte == b' ').ok_or("a line without a time")?;
    let text = std::str::from_utf8(&line[..split])?;
    Ok((Some(nanos_of_day(text).ok_or("a time that is none")?), &line[split + 1..]))
}

/// Nanoseconds since 1970 of a time of the current day, in UTC: a measurement is short, and midnight is a time to sleep.
fn nanos_of_day(text: &str) -> Option<i64> {
    const DAY: i64 = 86_400 * 1_000_000_000;
    let (clock, fraction) = text.split_once('T')?.1.trim_end_matches('Z').split_once('.').unwrap_or_default();
    let mut seconds = 0;
    for part in clock.split(':') {
        seconds = seconds * 60 + part.parse::<i64>().ok()?;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    Some(now() / DAY * DAY + seconds * 1_000_000_000 + nanos)
}
