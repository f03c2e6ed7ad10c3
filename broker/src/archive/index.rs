//! What the archive says about itself: claims, indexes, outcomes, as the JSON objects that they are.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::mark::Mark;
use super::store::{Store, StoreError};
use crate::execution::{Execution, StreamKey};

/// How many segments a page of an index tells about: a page is written again with each of them.
pub(super) const PAGE: usize = 128;
/// More than this many segments of one writer are not read: 64 GiB of lines in segments of the usual size.
const MAX_SEGMENTS: usize = 512 * PAGE;
/// The number of a generation is four digits; nobody takes over so often.
pub(super) const MAX_GENERATION: u32 = 9999;

/// Who writes a generation. Made once, by whoever is first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claim {
    /// The writer's name; it is alive while it gives signs of life.
    pub(super) writer: String,
    /// Where it begins: a cursor of the contract as base64; empty for the beginning.
    pub(super) cursor: String,
}

/// How an execution ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ended {
    /// As END told it.
    pub(super) execution: Execution,
}

/// One page of a generation's index.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Page {
    /// The first segment's number.
    pub(super) first: u32,
    /// In the order of their numbers.
    pub(super) segments: Vec<Entry>,
}

/// What stands in one segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its bytes, compressed.
    pub(super) bytes: u64,
    /// Something beside lines stands in it.
    pub(super) said: bool,
    /// The cursor after it, as base64. In memory only the last one is kept.
    pub(super) cursor: String,
    /// What it has of each container instance.
    pub(super) streams: Vec<Stretch>,
}

/// The lines of one container instance in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stretch {
    pub(super) attempt: u32,
    pub(super) container: String,
    pub(super) restart: u32,
    /// How many.
    pub(super) lines: u64,
    /// The place behind the last one.
    pub(super) after: Mark,
}

impl Stretch {
    pub(super) fn key(&self) -> StreamKey {
        StreamKey { attempt: self.attempt, container: self.container.clone(), restart: self.restart }
    }
}

pub(super) fn page_name(page: usize) -> String {
    format!("index-{page:06}.json")
}

pub(super) fn segment_name(number: u32) -> String {
    format!("{number:08}.gz")
}

pub(super) fn text(cursor: &[u8]) -> String {
    BASE64_STANDARD.encode(cursor)
}

/// A cursor that was written by [`text`]; damage is found when it is decoded.
pub(super) fn cursor(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).unwrap_or_default()
}

pub(super) fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// What one writer has written of an execution.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) number: u32,
    pub(super) claim: Claim,
    pub(super) segments: Vec<Entry>,
    /// A part of this cannot be read, so there may be more of it.
    pub(super) damaged: bool,
}

impl Generation {
    /// Where the next writer is to begin, if this one wrote anything.
    pub(super) fn cursor(&self) -> Option<Vec<u8>> {
        self.segments.last().map(|entry| cursor(&entry.cursor))
    }

    /// How far it has come with a container instance, if it has any of it.
    pub(super) fn after(&self, key: &StreamKey) -> Option<Mark> {
        let stretches = self.segments.iter().rev().flat_map(|entry| &entry.streams);
        stretches.filter(|stretch| stretch.key() == *key).map(|stretch| stretch.after).next()
    }
}

/// Reads what there is of an execution: every generation with its index.
pub(super) async fn generations(store: &Store, hash: &str) -> Result<Vec<Generation>, StoreError> {
    let folder = store.execution(hash);
    let mut numbers: Vec<u32> = store.folders(&folder).await?.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.retain(|number| (1..=MAX_GENERATION).contains(number));
    numbers.sort_unstable();
    numbers.dedup();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        // The claim comes first: a folder without one is being deleted. One that is damaged is nobody's.
        let claim = unless_damaged(store.json(&store.generation(hash, number, "claim.json")).await)?;
        let damaged = claim.is_none();
        let Some(claim) = claim.unwrap_or(Some(Claim { writer: String::new(), cursor: String::new() })) else {
            continue;
        };
        let mut generation = Generation { number, claim, segments: Vec::new(), damaged };
        while generation.segments.len() < MAX_SEGMENTS {
            let page = generation.segments.len() / PAGE;
            // What comes behind a damaged page is lost.
            let page = store.json::<Page>(&store.generation(hash, number, &page_name(page))).await;
            let page = unless_damaged(page)?;
            generation.damaged |= page.is_none();
            let Some(page) = page.flatten() else { break };
            let full = page.segments.len() == PAGE;
            for entry in page.segments.into_iter().take(PAGE) {
                if let Some(before) = generation.segments.last_mut() {
                    before.cursor = String::new();
                }
                generation.segments.push(entry);
            }
            if !full {
                break;
            }
        }
        found.push(generation);
    }
    Ok(found)
}

/// What was read, or nothing, with a warning, if it is damaged: one bad object must not take the others along.
fn unless_damaged<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ StoreError::Damaged { .. }) => {
            warn!(error = &error as &dyn std::error::Error, "passing over a part of the archive");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
