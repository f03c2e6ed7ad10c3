//! What a segment holds: lines, and what else a watch said, one after another.
//!
//! A segment is a gzip file, so that `zcat` shows it. In it a record is a byte for its kind, the length of the rest as four
//! bytes (big-endian like all numbers here), and the rest: `L` is lines of one container instance, `J` is JSON. The first
//! record is the JSON of the format's version.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, Bytes};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::mark::Mark;
use crate::execution::{Attempt, Completeness, Gap, Instance, LogLine, NoResult, Outcome, ResultSource, Severity};

/// Compression costs more than the network here: the fastest level halves a text at least.
const LEVEL: Compression = Compression::fast();
/// So much is compressed before others get their turn, about a millisecond of work.
const TURN: usize = 64 << 10;
/// No record of ours is larger: a result of 1 MiB as base64, and what is said of it.
const MAX_RECORD: usize = 4 << 20;
/// No segment of ours is larger before compression: 8 MiB, and the record that made it so large. What claims to be is no
/// segment, and would cost whoever reads it as much as it likes.
const MAX_SEGMENT: u64 = 16 << 20;

const LINES: u8 = b'L';
const JSON: u8 = b'J';

/// Why a segment cannot be read.
#[derive(Debug, Error)]
pub(super) enum RecordError {
    /// It is cut, or was changed.
    #[error("a segment of the archive is damaged")]
    Damaged(#[source] Option<std::io::Error>),
    /// It holds what it cannot hold.
    #[error("a segment of the archive is damaged")]
    Json(#[from] serde_json::Error),
    /// A newer broker wrote it.
    #[error("a segment of the archive has the format {0}, which this broker does not know")]
    Version(u32),
}

/// One thing that a watch said.
#[derive(Debug, Clone)]
pub(super) enum Record {
    /// Lines of one instance.
    Lines {
        instance: Instance,
        /// The place before the first one.
        before: Mark,
        lines: Vec<LogLine>,
    },
    /// Anything else.
    Said(Said),
}

/// What a watch says beside lines.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Format(u32),
    AttemptStarted(Attempt),
    AttemptEnded(Attempt, Outcome),
    Gap { gap: Gap, at: Mark },
    StreamEnd(Instance, Completeness),
    Notice { key: u32, code: String, message: String, severity: Severity },
    Result { source: ResultSource, content: Option<String>, problem: Option<NoResult> },
}

impl Said {
    pub(super) const FORMAT: Self = Self::Format(1);

    pub(super) fn result(source: ResultSource, value: Result<Bytes, NoResult>) -> Self {
        match value {
            Ok(content) => Self::Result { source, content: Some(BASE64_STANDARD.encode(content)), problem: None },
            Err(problem) => Self::Result { source, content: None, problem: Some(problem) },
        }
    }
}

/// The value of a result that was written by [`Said::result`].
pub(super) fn value(content: Option<String>, problem: Option<NoResult>) -> Result<Bytes, NoResult> {
    let damaged = || NoResult::Unreadable("the result is damaged in the archive".to_owned());
    match (content, problem) {
        (Some(content), _) => BASE64_STANDARD.decode(content).map(Bytes::from).map_err(|_| damaged()),
        (None, Some(problem)) => Err(problem),
        (None, None) => Err(damaged()),
    }
}

fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    out.push(kind);
    out.extend([0; 4]);
    out.len()
}

fn end(out: &mut [u8], body: usize) {
    let length = u32::try_from(out.len() - body).unwrap_or(u32::MAX);
    out[body - 4..body].copy_from_slice(&length.to_be_bytes());
}

/// Appends lines of one instance.
pub(super) fn put_lines(out: &mut Vec<u8>, instance: &Instance, before: Mark, lines: &[LogLine]) {
    let body = begin(out, LINES);
    let head = serde_json::to_vec(&(instance, before)).unwrap_or_default();
    out.extend(u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(head);
    for line in lines {
        out.extend(line.nanos.to_be_bytes());
        out.push(u8::from(line.continues) | u8::from(line.partial) << 1);
        out.extend(u32::try_from(line.content.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&line.content);
    }
    end(out, body);
}

/// Appends anything else.
pub(super) fn put(out: &mut Vec<u8>, said: &Said) {
    let body = begin(out, JSON);
    out.extend(serde_json::to_vec(said).unwrap_or_default());
    end(out, body);
}

/// Compresses records, a piece at a time, so that others get their turn.
pub(super) async fn compress(records: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(records.len() / 4), LEVEL);
    for piece in records.chunks(TURN) {
        // Writing into memory does not fail.
        let _ = encoder.write_all(piece);
        tokio::task::yield_now().await;
    }
    encoder.finish().unwrap_or_default()
}

/// Reads the records of a segment, one after another; only one is in memory.
pub(super) struct Records {
    input: std::io::Take<GzDecoder<bytes::buf::Reader<Bytes>>>,
}

impl Records {
    pub(super) fn new(segment: Bytes) -> Self {
        Self { input: GzDecoder::new(segment.reader()).take(MAX_SEGMENT) }
    }

    /// The next one; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Record>, RecordError> {
        let broken = |error| RecordError::Damaged(Some(error));
        loop {
            let mut kind = [0];
            if self.input.read(&mut kind).map_err(broken)? == 0 {
                return if self.input.limit() == 0 { Err(RecordError::Damaged(None)) } else { Ok(None) };
            }
            let mut length = [0; 4];
            self.input.read_exact(&mut length).map_err(broken)?;
            let length = u32::from_be_bytes(length) as usize;
            if length > MAX_RECORD {
                return Err(RecordError::Damaged(None));
            }
            let mut body = vec![0; length];
            self.input.read_exact(&mut body).map_err(broken)?;
            match kind {
                [LINES] => return lines(Bytes::from(body)).map(Some),
                [JSON] => match serde_json::from_slice(&body)? {
                    Said::Format(1) => {}
                    Said::Format(version) => return Err(RecordError::Version(version)),
                    said => return Ok(Some(Record::Said(said))),
                },
                _ => return Err(RecordError::Damaged(None)),
            }
        }
    }
}

fn lines(mut body: Bytes) -> Result<Record, RecordError> {
    let damaged = || RecordError::Damaged(None);
    let mut take = |length: usize| if body.len() < length { Err(damaged()) } else { Ok(body.split_to(length)) };
    let head = take(4)?.get_u32() as usize;
    let (instance, before) = serde_json::from_slice(&take(head)?)?;
    let mut lines = Vec::new();
    while let Ok(mut fixed) = take(13) {
        let nanos = fixed.get_i64();
        let flags = fixed.get_u8();
        let content = take(fixed.get_u32() as usize)?;
        lines.push(LogLine { nanos, content, continues: flags & 1 != 0, partial: flags & 2 != 0 });
    }
    Ok(Record::Lines { instance, before, lines })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::execution::ContainerRole;

    fn instance() -> Instance {
        Instance { attempt: 1, container: "base".to_owned(), restart: 2, role: ContainerRole::Deciding }
    }

    fn now<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn read(segment: Vec<u8>) -> Result<Vec<Record>, RecordError> {
        let mut records = Records::new(Bytes::from(segment));
        std::iter::from_fn(|| records.next().transpose()).collect()
    }

    proptest! {
        #[test]
        fn lines_survive_whatever_their_bytes_are(
            lines in prop::collection::vec((any::<i64>(), prop::collection::vec(any::<u8>(), 0..40), any::<bool>(), any::<bool>()), 0..40),
        ) {
            let lines: Vec<_> = lines.into_iter().map(|(nanos, content, continues, partial)| {
                LogLine { nanos, content: content.into(), continues, partial }
            }).collect();
            let mut out = Vec::new();
            put(&mut out, &Said::FORMAT);
            put_lines(&mut out, &instance(), Mark::START, &lines);
            let segment = now(compress(&out));
            let Record::Lines { instance: of, before, lines: found } = read(segment).unwrap().remove(0) else {
                panic!("no lines")
            };
            prop_assert_eq!((of, before, found), (instance(), Mark::START, lines));
        }

        #[test]
        fn any_bytes_are_answered_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(bytes.clone());
            let _ = lines(Bytes::from(bytes));
        }

        #[test]
        fn a_changed_byte_is_noticed_or_harmless(at in any::<prop::sample::Index>(), change in 1_u8..) {
            let mut out = Vec::new();
            put(&mut out, &Said::result(ResultSource::Sidecar, Ok(Bytes::from_static(b"{}"))));
            let mut segment = now(compress(&out));
            let at = at.index(segment.len());
            segment[at] ^= change;
            if let Ok(found) = read(segment) {
                prop_assert_eq!(format!("{found:?}"), format!("{:?}", read(now(compress(&out))).unwrap()));
            }
        }
    }

    #[test]
    fn a_result_survives_with_its_bytes() {
        let Said::Result { content, problem, .. } =
            Said::result(ResultSource::Sidecar, Ok(Bytes::from_static(b"\xff\0")))
        else {
            panic!("no result")
        };
        assert_eq!(value(content, problem).unwrap(), Bytes::from_static(b"\xff\0"));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut out = Vec::new();
        put(&mut out, &Said::Format(2));
        assert!(matches!(read(now(compress(&out))), Err(RecordError::Version(2))));
    }

    #[test]
    fn a_segment_that_unpacks_to_far_more_than_ours_is_refused() {
        let mut piece = Vec::new();
        put(&mut piece, &Said::FORMAT);
        let bomb = now(compress(&piece.repeat(usize::try_from(MAX_SEGMENT).unwrap() / piece.len() * 4)));
        assert!(bomb.len() < 1 << 20, "{}", bomb.len());
        assert!(matches!(read(bomb), Err(RecordError::Damaged(_))));
        let mut long = vec![LINES];
        long.extend(u32::MAX.to_be_bytes());
        assert!(matches!(read(now(compress(&long))), Err(RecordError::Damaged(None))));
    }
}
