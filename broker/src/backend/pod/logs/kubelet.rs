//! A model of the kubelet. It reads files as the kubelet does: only the current one, each line on its own compared with the
//! wanted second, one reopening for each rotation that it was told of since it first came to the end of a file. So it passes
//! over files and repeats them in the same ways.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use kube::core::Status;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::super::api::{ApiError, LogRequest};
use super::source::{Body, BrokeOff, LogSource};

pub(super) const S: i64 = 1_000_000_000;
/// 2026-11-21T08:00:00Z
pub(super) const BASE: i64 = 1_795_248_000 * S;

/// The files of one run of the container, the current one last.
type Files = Vec<Vec<(i64, String)>>;

pub(super) struct State {
    /// One for each time that the container was started. A log names the last one or the one before.
    runs: Vec<Files>,
    /// The last run has ended.
    pub(super) ended: bool,
    /// The pod was deleted: with the container's end its log goes, but for who has the file open.
    pub(super) is_deleted: bool,
    pub(super) stalled_until: Instant,
    pub(super) cuts: u64,
    /// How the latest cut ended its answers.
    pub(super) cut: CutKind,
    /// So many answers that are asked for next say why the log cannot be read, and nothing else.
    pub(super) refusals: u64,
    /// How often the open answers went silent for good, without an end.
    pub(super) silences: u64,
    pub(super) requests: u64,
}

impl State {
    /// The files that are written to.
    pub(super) fn files(&mut self) -> &mut Files {
        self.runs.last_mut().unwrap()
    }

    /// The container is started again.
    pub(super) fn restart(&mut self) {
        self.runs.push(vec![vec![]]);
        self.ended = false;
    }

    fn has_ended(&self, run: usize) -> bool {
        self.ended || run + 1 < self.runs.len()
    }
}

/// How an answer is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CutKind {
    /// In the middle of a line.
    Error,
    /// A follow ends as at the end of the log.
    Clean,
    /// With the kubelet's error as its last bytes.
    Told,
}

/// What the kubelet writes where it cannot read, in two pieces.
fn error(number: u64) -> [Bytes; 2] {
    let path = "/var/log/pods/n_x-1_u/base/0.log";
    let text = match number % 4 {
        0 => format!("failed to try resolving symlinks in path {path:?}: lstat {path}: no such file or directory"),
        1 => format!("failed to open log file {path:?}: open {path}: no such file or directory"),
        2 => "unable to retrieve container logs for containerd://0a1b2c".to_owned(),
        _ => "rpc error: code = NotFound desc = an error occurred when try to find container".to_owned(),
    };
    let mut first = Bytes::from(text);
    let second = first.split_off(usize::try_from(number * 7 % 40).unwrap());
    [first, second]
}

pub(super) struct Kubelet {
    pub(super) state: Mutex<State>,
    changed: watch::Sender<u64>,
    began: Instant,
    /// Bytes of one piece of an answer.
    piece: usize,
}

impl Kubelet {
    pub(super) fn new(piece: usize) -> Arc<Self> {
        let began = Instant::now();
        let state = State {
            runs: vec![vec![vec![]]],
            ended: false,
            is_deleted: false,
            stalled_until: began,
            cuts: 0,
            cut: CutKind::Error,
            refusals: 0,
            silences: 0,
            requests: 0,
        };
        Arc::new(Self { state: Mutex::new(state), changed: watch::Sender::new(0), began, piece })
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state.lock().unwrap());
        self.changed.send_modify(|version| *version += 1);
        done
    }

    pub(super) fn elapsed(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    fn is_cut(&self, cuts: u64) -> bool {
        self.state.lock().unwrap().cuts != cuts
    }

    /// What comes last of an answer that is cut, within those bytes.
    fn cut_off(&self, follow: bool, bytes: &[u8]) -> Vec<Result<Bytes, BrokeOff>> {
        let cut = self.state.lock().unwrap().cut;
        match cut {
            CutKind::Clean if follow => vec![],
            CutKind::Told => error(u64::from(follow)).map(Ok).into(),
            CutKind::Error | CutKind::Clean => {
                vec![Ok(Bytes::copy_from_slice(&bytes[..bytes.len() / 2])), Err("cut".into())]
            }
        }
    }

    /// Never returns once the answer went silent.
    async fn may_speak(&self, silences: u64) {
        if self.state.lock().unwrap().silences != silences {
            std::future::pending::<()>().await;
        }
    }

    /// Waits while writes to the reader block. False once the answer was cut off.
    async fn may_write(&self, cuts: u64) -> bool {
        loop {
            let (until, now_cut) = {
                let state = self.state.lock().unwrap();
                (state.stalled_until, state.cuts != cuts)
            };
            if now_cut {
                return false;
            }
            if until <= Instant::now() {
                return true;
            }
            let mut changed = self.changed.subscribe();
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                _ = changed.changed() => {}
            }
        }
    }
}

fn bytes_of((nanos, content): &(i64, String), since: Option<i64>) -> Vec<u8> {
    if since.is_some_and(|second| *nanos < second * S) {
        return Vec::new();
    }
    let time = Timestamp::from_nanosecond(i128::from(*nanos)).unwrap();
    format!("{time:.9} {content}\n").into_bytes()
}

impl LogSource for Arc<Kubelet> {
    fn log<'a>(&'a self, _: &'a str, log: &'a LogRequest<'a>) -> BoxFuture<'a, Result<Body, ApiError>> {
        let kubelet = Arc::clone(self);
        let (follow, since, tail, limit) = (log.follow, log.since, log.tail_lines, log.limit_bytes);
        // Whoever asks knows what the kubelet knows. One that asks for a run in the moment in which the next one begins, before
        // the status says so, would be given that one.
        let run = {
            let runs = self.state.lock().unwrap().runs.len();
            if log.previous { runs.checked_sub(2) } else { Some(runs - 1) }
        };
        async move {
            let refused = |code| ApiError::Refused(Box::new(Status { code, ..Status::default() }));
            tokio::time::sleep(Duration::from_millis(2)).await;
            let Some(run) = run else { return Err(refused(400)) };
            let (cuts, silences, mut file, mut line) = {
                let mut state = kubelet.state.lock().unwrap();
                state.requests += 1;
                let is_gone = state.ended && state.is_deleted;
                // The pod is known for a while after its files went.
                if is_gone && state.requests.is_multiple_of(2) {
                    return Err(refused(404));
                }
                if is_gone || state.refusals > 0 {
                    state.refusals = state.refusals.saturating_sub(1);
                    return Ok(futures::stream::iter(error(state.requests).map(Ok)).boxed());
                }
                let files = &state.runs[run];
                let lines = files.last().unwrap().len();
                let first = tail.map_or(0, |tail| lines.saturating_sub(usize::try_from(tail).unwrap()));
                (state.cuts, state.silences, files.len() - 1, first)
            };
            let body = async_stream::stream! {
                let mut changed = kubelet.changed.subscribe();
                let mut sent = 0_usize;
                // How many rotations it was told of; none before it has come to the end of a file.
                let mut told: Option<usize> = None;
                loop {
                    changed.borrow_and_update();
                    let (bytes, at_the_end, ended, rotations) = {
                        let state = kubelet.state.lock().unwrap();
                        let files = &state.runs[run];
                        let mut bytes = Vec::new();
                        while let Some(entry) = files[file].get(line) && bytes.len() < kubelet.piece {
                            bytes.extend(bytes_of(entry, since));
                            line += 1;
                        }
                        (bytes, line == files[file].len(), state.has_ended(run), files.len() - 1)
                    };
                    kubelet.may_speak(silences).await;
                    if !bytes.is_empty() {
                        let may_write = kubelet.may_write(cuts).await;
                        kubelet.may_speak(silences).await;
                        if !may_write {
                            for piece in kubelet.cut_off(follow, &bytes) {
                                yield piece;
                            }
                            return;
                        }
                        let room = limit.map_or(bytes.len(), |limit| usize::try_from(limit).unwrap().saturating_sub(sent).min(bytes.len()));
                        sent += room;
                        yield Ok(Bytes::from(bytes[..room].to_vec()));
                        if limit.is_some_and(|limit| sent >= usize::try_from(limit).unwrap()) {
                            return;
                        }
                        continue;
                    }
                    if !at_the_end {
                        continue;
                    }
                    if !follow {
                        return;
                    }
                    match told {
                        None => told = Some(rotations),
                        Some(seen) if seen < rotations => {
                            told = Some(seen + 1);
                            (file, line) = (rotations, 0);
                        }
                        Some(_) if ended => return,
                        Some(_) => {
                            let _ = changed.changed().await;
                            kubelet.may_speak(silences).await;
                            if kubelet.is_cut(cuts) {
                                for piece in kubelet.cut_off(follow, &[]) {
                                    yield piece;
                                }
                                return;
                            }
                        }
                    }
                }
            };
            Ok(body.boxed())
        }
        .boxed()
    }

    fn now(&self) -> i64 {
        BASE + self.elapsed()
    }
}
