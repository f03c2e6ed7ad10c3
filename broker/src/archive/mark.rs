//! Where an entry stands in the log of one container instance, so that two copies of the log can be compared.
//!
//! The time of the latest entry, and how many entries came since that time was first seen. A node's clock may go back: what
//! is written until it has caught up counts on from the latest time. So marks only grow, whoever reads the log and
//! wherever they begin, and of two writers each knows what the other one has had.

use serde::{Deserialize, Serialize};

use crate::execution::{InstancePosition, Position};

/// A place behind an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Nanoseconds since 1970.
    pub(super) nanos: i64,
    /// 1 for the first entry of that time.
    pub(super) ordinal: u32,
}

impl Mark {
    /// Before the first entry.
    pub(super) const START: Self = Self { nanos: i64::MIN, ordinal: 0 };
    /// Behind the last one.
    pub(super) const END: Self = Self { nanos: i64::MAX, ordinal: u32::MAX };

    /// Behind one more entry.
    pub(super) fn after(self, nanos: i64) -> Self {
        if nanos > self.nanos {
            Self { nanos, ordinal: 1 }
        } else {
            Self { ordinal: self.ordinal.saturating_add(1), ..self }
        }
    }

    /// The place of a position, without the entries behind it that its holder has had.
    pub(super) fn of(position: InstancePosition) -> Self {
        match position.position {
            Position::Start => Self::START,
            Position::At { nanos, ordinal, .. } => Self { nanos, ordinal },
            Position::Complete => Self::END,
        }
    }

    /// The position of this place, behind an entry with that content.
    pub(super) fn position(self, content: &[u8]) -> InstancePosition {
        let Self { nanos, ordinal } = self;
        let check = crc32fast::hash(content);
        InstancePosition { position: Position::At { nanos, ordinal, check }, skip: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_only_grow_whatever_the_clock_does(times in prop::collection::vec(0_i64..5, 1..50)) {
            let mut mark = Mark::START;
            for nanos in times {
                let next = mark.after(nanos);
                prop_assert!(next > mark);
                mark = next;
            }
        }
    }

    #[test]
    fn a_mark_survives_as_a_position() {
        let mark = Mark::START.after(7).after(7);
        assert_eq!(Mark::of(mark.position(b"x")), mark);
    }
}
