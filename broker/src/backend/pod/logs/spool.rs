//! How much of all logs is held, in memory and on disk, and the files that hold what memory does not.
//!
//! One for the whole broker: its streams draw on the same two limits, and none of them takes all of the disk from the others. A
//! file has no name, so nobody else can open it and it goes with the process, however that ends. A stream writes one file after
//! another; a file is given back when everything in it was read or dropped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::execution::LogLine;

/// A file is given back as a whole, so it is small against the limit.
const FILE_BYTES: u64 = 4 << 20;

/// A stream may hold so many times as much on disk as is free. Alone it gets three quarters; whoever comes later finds room, and
/// who holds more than that by then drops its oldest before it writes again: among those that go on, shares become equal.
const SHARE: u64 = 3;

/// Reads and writes of all streams that may wait for a disk at once. A page cache answers in microseconds; this is for the
/// disk that does not.
const DISK_TASKS: usize = 8;

/// What a line needs besides its content: its fields, and the time stamp beside it in the buffer that both share.
const LINE_OVERHEAD: usize = 96;

/// Time, flags and length of a line in a file.
const HEAD: usize = 8 + 1 + 4;

/// How much may be held.
#[derive(Debug, Clone)]
pub struct SpoolLimits {
    /// Bytes in memory for one container's log.
    pub memory_per_stream: u64,
    /// Bytes in memory for all logs.
    pub memory: u64,
    /// Bytes on disk for all logs; 0 for none.
    pub disk: u64,
    /// Where the files are; the system's folder for temporary files without.
    pub folder: Option<PathBuf>,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { memory_per_stream: 1 << 20, memory: 64 << 20, disk: 1 << 30, folder: None }
    }
}

/// What is held now, and what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolUse {
    /// Container logs that are read now.
    pub streams: u64,
    /// Bytes in memory.
    pub memory: u64,
    /// Bytes on disk.
    pub disk: u64,
    /// Bytes ever written to disk.
    pub spilled: u64,
    /// Lines ever dropped before a slow watcher had them.
    pub dropped_lines: u64,
}

/// The limits and what is used of them.
#[derive(Debug)]
pub struct Spool {
    limits: SpoolLimits,
    streams: AtomicU64,
    memory: AtomicU64,
    disk: AtomicU64,
    spilled: AtomicU64,
    dropped_lines: AtomicU64,
    /// Counts how often memory ran out: streams let go of what they only keep for those who may come.
    short: watch::Sender<u64>,
    disk_tasks: Semaphore,
    tasks: TaskTracker,
}

impl Spool {
    /// With these limits; disk work is done on tasks of the tracker. Without a folder that takes files, memory is all there is.
    pub fn new(mut limits: SpoolLimits, tasks: TaskTracker) -> Arc<Self> {
        if limits.disk > 0
            && let Err(error) = file(limits.folder.as_deref())
        {
            let folder = limits.folder.take().unwrap_or_else(std::env::temp_dir);
            warn!(
                error = &error as &dyn std::error::Error,
                folder = %folder.display(),
                "no files can be made there, so log lines for slow watchers are held in memory only"
            );
            limits.disk = 0;
        }
        Arc::new(Self {
            limits,
            streams: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            disk: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            dropped_lines: AtomicU64::new(0),
            short: watch::Sender::new(0),
            disk_tasks: Semaphore::new(DISK_TASKS),
            tasks,
        })
    }

    /// What is held now.
    pub fn used(&self) -> SpoolUse {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        SpoolUse {
            streams: read(&self.streams),
            memory: read(&self.memory),
            disk: read(&self.disk),
            spilled: read(&self.spilled),
            dropped_lines: read(&self.dropped_lines),
        }
    }

    pub(super) fn stream_opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stream_closed(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn lines_dropped(&self, lines: u64) {
        self.dropped_lines.fetch_add(lines, Ordering::Relaxed);
    }

    /// Whether a stream that holds so much is to let go of some.
    pub(super) fn is_too_much(&self, of_one_stream: u64) -> bool {
        of_one_stream > self.limits.memory_per_stream || self.memory.load(Ordering::Relaxed) > self.limits.memory
    }

    /// Counts what was taken into memory.
    pub(super) fn hold(&self, bytes: u64) {
        let before = self.memory.fetch_add(bytes, Ordering::Relaxed);
        if before <= self.limits.memory && before + bytes > self.limits.memory {
            self.short.send_modify(|times| *times += 1);
        }
    }

    /// Counts what was let go of.
    pub(super) fn release(&self, bytes: u64) {
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Says when memory has run out.
    pub(super) fn shortage(&self) -> watch::Receiver<u64> {
        self.short.subscribe()
    }

    /// Writes lines to the stream's current file, or to a new one; nothing if there is no room, or the stream has its share.
    pub(super) async fn write(self: &Arc<Self>, files: &mut Files, lines: Arc<[LogLine]>) -> Option<Piece> {
        let length: usize = lines.iter().map(|line| HEAD + line.content.len()).sum();
        let added = length as u64;
        let reserved = self.disk.fetch_add(added, Ordering::Relaxed) + added;
        let free = self.limits.disk.saturating_sub(reserved);
        if files.used.load(Ordering::Relaxed) + added > free.saturating_mul(SHARE) {
            self.disk.fetch_sub(added, Ordering::Relaxed);
            return None;
        }
        let current = files.current.take().filter(|segment| segment.used() < FILE_BYTES);
        let (spool, folder) = (Arc::clone(self), self.limits.folder.clone());
        let of_stream = Arc::clone(&files.used);
        let written = self
            .on_disk(move || {
                let segment = match current {
                    Some(segment) => segment,
                    None => Segment::create(spool, of_stream, folder.as_deref())?,
                };
                let at = segment.used();
                segment.file.write_all_at(&encode(&lines, length), at)?;
                segment.used.fetch_add(added, Ordering::Relaxed);
                segment.of_stream.fetch_add(added, Ordering::Relaxed);
                Ok(Piece { segment, at, length })
            })
            .await;
        match written {
            Ok(piece) => {
                self.spilled.fetch_add(added, Ordering::Relaxed);
                files.current = Some(Arc::clone(&piece.segment));
                Some(piece)
            }
            Err(error) => {
                self.disk.fetch_sub(added, Ordering::Relaxed);
                warn!(error = &error as &dyn std::error::Error, "log lines cannot be put on disk");
                None
            }
        }
    }

    /// Reads a piece again.
    pub(super) async fn read(&self, piece: Piece) -> io::Result<Arc<[LogLine]>> {
        self.on_disk(move || {
            let mut bytes = BytesMut::zeroed(piece.length);
            piece.segment.file.read_exact_at(&mut bytes, piece.at)?;
            Ok(decode(bytes.freeze()))
        })
        .await
    }

    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let _permit = self.disk_tasks.acquire().await.map_err(io::Error::other)?;
        self.tasks.spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

/// A file without a name.
fn file(folder: Option<&Path>) -> io::Result<File> {
    match folder {
        Some(folder) => tempfile::tempfile_in(folder),
        None => tempfile::tempfile(),
    }
}

/// The files of one stream.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// What is written to.
    current: Option<Arc<Segment>>,
    /// Bytes in all of them.
    used: Arc<AtomicU64>,
}

impl Files {
    /// Begins another file with the next lines: one that is written to would not be given back.
    pub(super) fn close(&mut self) {
        self.current = None;
    }
}

/// One file of a stream.
#[derive(Debug)]
struct Segment {
    file: File,
    used: AtomicU64,
    /// Bytes in all files of its stream.
    of_stream: Arc<AtomicU64>,
    spool: Arc<Spool>,
}

impl Segment {
    fn create(spool: Arc<Spool>, of_stream: Arc<AtomicU64>, folder: Option<&Path>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { file: file(folder)?, used: AtomicU64::new(0), of_stream, spool }))
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.spool.disk.fetch_sub(self.used(), Ordering::Relaxed);
        self.of_stream.fetch_sub(self.used(), Ordering::Relaxed);
    }
}

/// Lines in a file.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    segment: Arc<Segment>,
    at: u64,
    length: usize,
}

impl Piece {
    /// Both are in one file.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment)
    }
}

/// What lines cost in memory.
pub(super) fn cost(lines: &[LogLine]) -> u64 {
    lines.iter().map(|line| (line.content.len() + LINE_OVERHEAD) as u64).sum()
}

fn encode(lines: &[LogLine], length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length);
    for line in lines {
        out.put_i64(line.nanos);
        out.put_u8(u8::from(line.continues) | u8::from(line.partial) << 1);
        out.put_u32(u32::try_from(line.content.len()).unwrap_or(u32::MAX));
        out.put_slice(&line.content);
    }
    out
}

fn decode(mut bytes: Bytes) -> Arc<[LogLine]> {
    let mut lines = Vec::new();
    while bytes.remaining() >= HEAD {
        let (nanos, flags, length) = (bytes.get_i64(), bytes.get_u8(), bytes.get_u32() as usize);
        let content = bytes.split_to(length.min(bytes.len()));
        lines.push(LogLine { nanos, content, continues: flags & 1 != 0, partial: flags & 2 != 0 });
    }
    lines.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: i64, content: &'static [u8]) -> Arc<[LogLine]> {
        (0..count)
            .map(|nanos| LogLine { nanos, content: content.into(), continues: nanos % 2 == 1, partial: nanos % 3 == 1 })
            .collect()
    }

    #[tokio::test]
    async fn what_was_written_is_read_again_and_given_back() {
        let spool = Spool::new(SpoolLimits::default(), TaskTracker::new());
        let mut files = Files::default();
        let first = spool.write(&mut files, lines(3, b"a\xff")).await.unwrap();
        let second = spool.write(&mut files, lines(5, b"")).await.unwrap();
        assert!(first.is_beside(&second));
        assert_eq!(spool.read(first.clone()).await.unwrap(), lines(3, b"a\xff"));
        assert_eq!(spool.read(second.clone()).await.unwrap(), lines(5, b""));
        assert_eq!(spool.used().disk, 3 * 15 + 5 * 13);
        drop((first, second, files));
        assert_eq!(spool.used(), SpoolUse { spilled: 3 * 15 + 5 * 13, ..SpoolUse::default() });
    }

    #[tokio::test]
    async fn nothing_is_written_over_the_limit_or_without_a_folder() {
        let small = SpoolLimits { disk: 60, ..SpoolLimits::default() };
        let spool = Spool::new(small, TaskTracker::new());
        let mut files = Files::default();
        let first = spool.write(&mut files, lines(2, b"abc")).await.unwrap();
        assert!(spool.write(&mut files, lines(2, b"abc")).await.is_none());
        drop((first, files));
        assert_eq!(spool.used().disk, 0);
        let nowhere = SpoolLimits { folder: Some("/nowhere".into()), ..SpoolLimits::default() };
        assert!(Spool::new(nowhere, TaskTracker::new()).write(&mut Files::default(), lines(2, b"abc")).await.is_none());
    }

    #[tokio::test]
    async fn one_stream_leaves_room_for_others_and_gives_way_to_them() {
        let limits = SpoolLimits { disk: 100_000, ..SpoolLimits::default() };
        let spool = Spool::new(limits, TaskTracker::new());
        // A thousand bytes each.
        let fill = async |files: &mut Files| {
            let mut pieces = Vec::new();
            while let Some(piece) = spool.write(files, lines(10, &[b'x'; 87])).await {
                pieces.push(piece);
            }
            pieces
        };
        let (mut greedy, mut second, mut third) = (Files::default(), Files::default(), Files::default());
        let first = fill(&mut greedy).await;
        assert_eq!(first.len(), 75);
        let (seconds, thirds) = (fill(&mut second).await, fill(&mut third).await);
        assert_eq!((seconds.len(), thirds.len()), (18, 5));
        assert!(fill(&mut greedy).await.is_empty(), "it has more than its share now");
        greedy.close();
        drop(first);
        assert_eq!(spool.used().disk, 23_000);
        let (first, seconds) = (fill(&mut greedy).await.len(), seconds.len() + fill(&mut second).await.len());
        assert!(first < 60 && seconds > 18, "{first} and {seconds}");
    }
}
