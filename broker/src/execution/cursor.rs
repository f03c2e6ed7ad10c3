//! The position of a watcher: what it has been told, so that any replica can go on from there.
//!
//! Encoded as a version byte, the body, and a CRC-32 of both. The checksum finds damage and nonsense; it is no signature,
//! since a cursor gives no right: it only says what the watcher does not want to hear again.
//!
//! A cursor inside a chunk is made by the watcher itself: the chunk's `line_cursor`, followed by the number of its lines
//! that were dealt with as four bytes. Version byte 2 announces those bytes.

use thiserror::Error;

/// Why a cursor was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CursorError {
    /// It is not one of ours, or not whole.
    #[error("the cursor is damaged; watch again without one")]
    Damaged,
    /// Another version of the broker made it.
    #[error("the cursor was made by another version of the broker; watch again without one")]
    UnknownVersion,
    /// It is for something else.
    #[error("the cursor belongs to another execution")]
    OtherExecution,
}

/// Which log stream of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The attempt, 1 for the first.
    pub attempt: u32,
    /// The container's name.
    pub container: String,
    /// 0 before the first restart.
    pub restart: u32,
}

/// How far a log stream was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Position {
    /// Nothing yet.
    #[default]
    Start,
    /// Behind the latest entry. The Kubernetes API can only be asked for whole seconds, so a reader asks for the second of
    /// the entry again and passes over what it had. Counting within the moment and not within the second, it finds its
    /// place also in a file that was rotated in between.
    At {
        /// The time of the latest entry, in nanoseconds since 1970.
        nanos: i64,
        /// How many entries of that very time were read, at least 1: the pieces of a long line share one.
        ordinal: u32,
        /// CRC-32 of the content of the last one, to see whether it is still there.
        check: u32,
    },
    /// To its end.
    Complete,
}

/// How far one log stream was handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstancePosition {
    /// The last position that the broker gave out.
    pub position: Position,
    /// How many entries behind it the watcher has had.
    pub skip: u32,
}

/// What a watcher has been told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The execution's hash, so that a cursor is not used for another one.
    pub execution: String,
    /// How many attempts it saw starting.
    pub attempts_started: u32,
    /// How many attempts it saw ending.
    pub attempts_ended: u32,
    /// It has the result.
    pub result_sent: bool,
    /// Keys of the latest notices, which are repeated to nobody.
    pub notices: Vec<u32>,
    /// Bytes of lines so far, for the budget.
    pub log_bytes: u64,
    /// One entry for each log stream that it has heard of, but for those of attempts that it saw ending.
    pub streams: Vec<(StreamKey, InstancePosition)>,
}

const PLAIN: u8 = 1;
const INSIDE_CHUNK: u8 = 2;

/// An execution has at most a few dozen container instances worth following; more in a cursor is an attack on our memory.
const MAX_STREAMS: usize = 4096;

/// More notices than one execution has at a time. When it has had more, an old one may be told again.
const MAX_NOTICES: usize = 32;

impl Cursor {
    /// Notes that a notice was told; says whether it was new.
    pub fn add_notice(&mut self, key: u32) -> bool {
        let is_new = !self.notices.contains(&key);
        if is_new {
            if self.notices.len() >= MAX_NOTICES {
                self.notices.remove(0);
            }
            self.notices.push(key);
        }
        is_new
    }

    /// At the beginning of an execution.
    pub fn start(execution: String) -> Self {
        Self { execution, ..Self::default() }
    }

    /// How far a stream was handed on.
    pub fn stream(&self, key: &StreamKey) -> InstancePosition {
        if key.attempt <= self.attempts_ended {
            return InstancePosition { position: Position::Complete, skip: 0 };
        }
        self.streams.iter().find(|(other, _)| other == key).map(|(_, position)| *position).unwrap_or_default()
    }

    /// Moves a stream.
    pub fn set_stream(&mut self, key: &StreamKey, position: InstancePosition) {
        match self.streams.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = position,
            None => self.streams.push((key.clone(), position)),
        }
    }

    /// An attempt has ended, and with it all its streams.
    pub fn end_attempt(&mut self, attempt: u32) {
        self.attempts_ended = self.attempts_ended.max(attempt);
        self.streams.retain(|(key, _)| key.attempt > attempt);
    }

    /// The cursor as bytes.
    pub fn encode(&self) -> Vec<u8> {
        seal(PLAIN, self.body())
    }

    /// The beginning of a cursor inside the next chunk of a stream; the watcher appends the count of lines.
    pub fn encode_inside(&self, key: &StreamKey) -> Vec<u8> {
        let mut with_stream = self.clone();
        with_stream.set_stream(key, self.stream(key));
        let index = with_stream.streams.iter().position(|(other, _)| other == key).unwrap_or_default();
        let mut body = with_stream.body();
        body.extend(number(index).to_be_bytes());
        seal(INSIDE_CHUNK, body)
    }

    /// Reads a cursor for an execution. Never panics, whatever the bytes are.
    pub fn decode(bytes: &[u8], execution: &str) -> Result<Self, CursorError> {
        let (version, rest) = bytes.split_first().ok_or(CursorError::Damaged)?;
        let (sealed, lines) = match *version {
            PLAIN => (bytes, None),
            INSIDE_CHUNK => {
                let at = rest.len().checked_sub(4).ok_or(CursorError::Damaged)? + 1;
                let lines = bytes.get(at..).and_then(|tail| tail.try_into().ok()).ok_or(CursorError::Damaged)?;
                (&bytes[..at], Some(u32::from_be_bytes(lines)))
            }
            _ => return Err(CursorError::UnknownVersion),
        };
        let mut reader = Reader(unseal(sealed)?);
        let mut cursor = reader.cursor()?;
        if let Some(lines) = lines {
            let index = reader.u32()? as usize;
            let (_, position) = cursor.streams.get_mut(index).ok_or(CursorError::Damaged)?;
            position.skip = position.skip.checked_add(lines).ok_or(CursorError::Damaged)?;
        }
        if !reader.0.is_empty() {
            return Err(CursorError::Damaged);
        }
        if cursor.execution != execution {
            return Err(CursorError::OtherExecution);
        }
        Ok(cursor)
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.streams.len() * 48);
        text(&mut out, &self.execution);
        out.extend(self.attempts_started.to_be_bytes());
        out.extend(self.attempts_ended.to_be_bytes());
        out.push(u8::from(self.result_sent));
        out.extend(number(self.notices.len()).to_be_bytes());
        self.notices.iter().for_each(|key| out.extend(key.to_be_bytes()));
        out.extend(self.log_bytes.to_be_bytes());
        out.extend(number(self.streams.len()).to_be_bytes());
        for (key, InstancePosition { position, skip }) in &self.streams {
            out.extend(key.attempt.to_be_bytes());
            text(&mut out, &key.container);
            out.extend(key.restart.to_be_bytes());
            out.extend(skip.to_be_bytes());
            match position {
                Position::Start => out.push(0),
                Position::At { nanos, ordinal, check } => {
                    out.push(1);
                    out.extend(nanos.to_be_bytes());
                    out.extend(ordinal.to_be_bytes());
                    out.extend(check.to_be_bytes());
                }
                Position::Complete => out.push(2),
            }
        }
        out
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend(number(value.len()).to_be_bytes());
    out.extend(value.as_bytes());
}

fn seal(version: u8, body: Vec<u8>) -> Vec<u8> {
    let mut out = vec![version];
    out.extend(body);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

fn unseal(sealed: &[u8]) -> Result<&[u8], CursorError> {
    let (content, sum) = sealed.split_last_chunk::<4>().ok_or(CursorError::Damaged)?;
    if crc32fast::hash(content) != u32::from_be_bytes(*sum) {
        return Err(CursorError::Damaged);
    }
    content.get(1..).ok_or(CursorError::Damaged)
}

/// Reads the body from its beginning.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn cursor(&mut self) -> Result<Cursor, CursorError> {
        let mut cursor = Cursor {
            execution: self.text()?,
            attempts_started: self.u32()?,
            attempts_ended: self.u32()?,
            result_sent: self.array::<1>()? != [0],
            notices: self.notices()?,
            log_bytes: u64::from_be_bytes(self.array()?),
            streams: Vec::new(),
        };
        let count = self.u32()? as usize;
        if count > MAX_STREAMS {
            return Err(CursorError::Damaged);
        }
        for _ in 0..count {
            let key = StreamKey { attempt: self.u32()?, container: self.text()?, restart: self.u32()? };
            let skip = self.u32()?;
            let position = match self.array::<1>()? {
                [0] => Position::Start,
                [1] => {
                    Position::At { nanos: i64::from_be_bytes(self.array()?), ordinal: self.u32()?, check: self.u32()? }
                }
                [2] => Position::Complete,
                _ => return Err(CursorError::Damaged),
            };
            cursor.streams.push((key, InstancePosition { position, skip }));
        }
        Ok(cursor)
    }

    fn notices(&mut self) -> Result<Vec<u32>, CursorError> {
        let count = self.u32()? as usize;
        if count > MAX_NOTICES {
            return Err(CursorError::Damaged);
        }
        (0..count).map(|_| self.u32()).collect()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CursorError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(CursorError::Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, CursorError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, CursorError> {
        let length = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(length).ok_or(CursorError::Damaged)?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).map_err(|_| CursorError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        prop_oneof![
            Just(Position::Start),
            Just(Position::Complete),
            (any::<i64>(), 1_u32.., any::<u32>()).prop_map(|(nanos, ordinal, check)| Position::At {
                nanos,
                ordinal,
                check
            }),
        ]
    }

    prop_compose! {
        fn cursor()(
            started in any::<u32>(), ended in 0_u32..2, result_sent in any::<bool>(),
            notices in prop::collection::vec(any::<u32>(), 0..9),
            log_bytes in any::<u64>(),
            streams in prop::collection::btree_map(
                (2_u32..4, "[a-z]{1,9}", 0_u32..3), (position(), 0_u32..9), 0..6),
        ) -> Cursor {
            let streams = streams.into_iter().map(|((attempt, container, restart), (position, skip))| {
                (StreamKey { attempt, container, restart }, InstancePosition { position, skip })
            }).collect();
            let execution = "e".to_owned();
            Cursor { execution, attempts_started: started, attempts_ended: ended, result_sent, notices, log_bytes, streams }
        }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_encoding(cursor in cursor()) {
            prop_assert_eq!(Cursor::decode(&cursor.encode(), "e"), Ok(cursor));
        }

        #[test]
        fn lines_of_a_chunk_are_added_to_the_position_before_it(cursor in cursor(), lines in 1_u32..1000) {
            let key = StreamKey { attempt: 2, container: "base".to_owned(), restart: 0 };
            let mut bytes = cursor.encode_inside(&key);
            bytes.extend(lines.to_be_bytes());
            let read = Cursor::decode(&bytes, "e").unwrap();
            prop_assert_eq!(read.stream(&key).skip, cursor.stream(&key).skip + lines);
            prop_assert_eq!(read.stream(&key).position, cursor.stream(&key).position);
        }

        #[test]
        fn any_bytes_are_answered_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Cursor::decode(&bytes, "e").is_err());
        }

        #[test]
        fn a_changed_byte_is_noticed(cursor in cursor(), at in any::<prop::sample::Index>(), change in 1_u8..) {
            let mut bytes = cursor.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            prop_assert!(Cursor::decode(&bytes, "e").is_err());
        }
    }

    #[test]
    fn an_attempt_that_ended_takes_no_room_and_is_read_no_more() {
        let key = |attempt| StreamKey { attempt, container: "base".to_owned(), restart: 0 };
        let at = |nanos| InstancePosition { position: Position::At { nanos, ordinal: 1, check: 0 }, skip: 0 };
        let mut cursor = Cursor::start("e".to_owned());
        cursor.set_stream(&key(1), at(5));
        cursor.set_stream(&key(2), at(7));
        cursor.end_attempt(1);
        let read = Cursor::decode(&cursor.encode(), "e").unwrap();
        assert_eq!(read.stream(&key(1)).position, Position::Complete);
        assert_eq!(read.stream(&key(2)), at(7));
        assert_eq!(read.streams.len(), 1);
    }

    #[test]
    fn a_cursor_of_another_execution_is_refused() {
        let bytes = Cursor::start("other".to_owned()).encode();
        assert_eq!(Cursor::decode(&bytes, "e"), Err(CursorError::OtherExecution));
    }
}
