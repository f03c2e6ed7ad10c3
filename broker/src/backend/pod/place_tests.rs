use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const NANOS: i64 = 1_000_000_000;

fn line(nanos: i64, content: &str) -> LogLine {
    LogLine { nanos, content: Bytes::from(content.to_owned()), continues: false, partial: false }
}

/// Reads a file from a position on as the API would give it; returns what was handed on and what was lost.
fn read(place: &mut Place, file: &[LogLine]) -> (Vec<LogLine>, Vec<Lost>) {
    place.begin();
    let (mut handed, mut lost) = (Vec::new(), Vec::new());
    for line in file {
        let (verdict, problem) = place.take(line);
        lost.extend(problem);
        if verdict == Verdict::HandOn {
            handed.push(line.clone());
        }
    }
    lost.extend(place.end());
    (handed, lost)
}

fn fresh() -> Place {
    Place::new(InstancePosition::default(), None)
}

#[test]
fn a_file_that_was_rotated_behind_the_position_is_read_on_without_a_gap() {
    let file: Vec<_> = (0..10).map(|n| line(5 * NANOS + n, &n.to_string())).collect();
    let mut place = fresh();
    assert_eq!(read(&mut place, &file[..6]).0.len(), 6);
    // The rotated part is gone, but the last line that was read is the first of what is left.
    assert_eq!(read(&mut place, &file[5..]), (file[6..].to_vec(), vec![]));
}

#[test]
fn a_file_that_was_rotated_past_the_position_has_a_gap() {
    let file: Vec<_> = (0..10).map(|n| line(5 * NANOS + n, &n.to_string())).collect();
    let mut place = fresh();
    read(&mut place, &file[..4]);
    assert_eq!(read(&mut place, &file[6..]), (file[6..].to_vec(), vec![Lost::Gone]));
    let mut place = fresh();
    read(&mut place, &file[..4]);
    assert_eq!(read(&mut place, &[]), (vec![], vec![Lost::Gone]));
}

#[test]
fn a_changed_line_at_the_position_is_noticed() {
    let mut place = fresh();
    read(&mut place, &[line(7, "a")]);
    assert_eq!(read(&mut place, &[line(7, "b"), line(8, "c")]), (vec![line(8, "c")], vec![Lost::Changed]));
}

#[test]
fn lines_before_the_wanted_moment_are_passed_over_and_counted() {
    let moment = Timestamp::from_nanosecond(5).unwrap();
    let mut place = Place::new(InstancePosition::default(), Some(moment));
    let file = [line(4, "a"), line(5, "b"), line(5, "c")];
    assert_eq!(read(&mut place, &file).0, file[1..]);
    assert_eq!(read(&mut place, &file), (vec![], vec![]));
}

#[test]
fn a_line_that_was_stamped_before_its_predecessor_is_counted_behind_it() {
    let file = [line(7 * NANOS, "a"), line(7 * NANOS - 1, "b"), line(7 * NANOS, "c"), line(9 * NANOS, "d")];
    let mut place = fresh();
    assert_eq!(read(&mut place, &file[..2]).0, file[..2]);
    assert_eq!(read(&mut place, &file), (file[2..].to_vec(), vec![]));
}

#[test]
fn lines_after_a_clock_went_far_back_are_found_again() {
    let file = [line(500 * NANOS, "a"), line(20 * NANOS, "b"), line(20 * NANOS, "b"), line(21 * NANOS, "c")];
    let mut place = fresh();
    read(&mut place, &file[..3]);
    assert_eq!(read(&mut place, &file), (file[3..].to_vec(), vec![]));
}

#[test]
fn positions_of_one_log_are_in_its_order() {
    let mut position = Position::Start;
    for line in [line(5, "a"), line(5, "a"), line(3, "b"), line(6, "c"), line(-9 * NANOS, "d"), line(7, "e")] {
        let next = after_line(position, &line);
        assert_eq!(compare(position, next), Ordering::Less);
        position = next;
    }
    assert_eq!(compare(position, position), Ordering::Equal);
    assert_eq!(compare(position, Position::Complete), Ordering::Less);
}

proptest! {
    #[test]
    fn from_any_earlier_position_the_rest_is_the_same(
        steps in prop::collection::vec((-2_i64..3, "[ab]{0,2}"), 1..40),
        at in any::<prop::sample::Index>(), there in any::<prop::sample::Index>(),
    ) {
        let mut nanos = 0;
        let log: Vec<_> = steps.iter().map(|(step, content)| { nanos += step; line(nanos, content) }).collect();
        let positions: Vec<_> = std::iter::once(Position::Start).chain(log.iter().scan(Position::Start, |position, line| {
            *position = after_line(*position, line);
            Some(*position)
        })).collect();
        let at = at.index(positions.len());
        let there = there.index(at + 1);
        let mut place = Place::new(InstancePosition { position: positions[at], skip: 0 }, None);
        place.begin_at(positions[there]);
        let mut rest = Vec::new();
        for line in &log[there..] {
            let (verdict, lost) = place.take(line);
            prop_assert_eq!(lost, None);
            if verdict == Verdict::HandOn {
                rest.push(line.clone());
            }
        }
        prop_assert_eq!(&rest[..], &log[at..]);
    }

    #[test]
    fn wherever_the_reading_stops_each_line_comes_once(
        steps in prop::collection::vec((prop_oneof![9 => -1_i64..3, 1 => -9000_i64..9000], "[ab]{0,2}"), 1..60),
        stops in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..4), 0..8),
    ) {
        // Many lines share a time, and many a content, as the pieces of a long line do.
        let mut nanos = 0;
        let file: Vec<_> = steps.iter().map(|(step, content)| {
            nanos += step * NANOS / 3;
            line(nanos, content)
        }).collect();
        let mut stops: Vec<_> = stops.iter().map(|(index, back)| (index.index(file.len()), *back)).collect();
        stops.sort_unstable();
        stops.push((file.len(), 0));
        let mut place = fresh();
        let mut handed = Vec::new();
        for (stop, taken) in stops {
            // The watcher has dealt with some lines of the chunk, and goes on from the position before it.
            let before = place.position();
            let (lines, lost) = read(&mut place, &file[..stop.max(handed.len())]);
            prop_assert_eq!(lost, vec![]);
            if stop < file.len() {
                let taken = (taken as usize).min(lines.len());
                handed.extend_from_slice(&lines[..taken]);
                let skip = before.skip + u32::try_from(taken).unwrap();
                place = Place::new(InstancePosition { skip, ..before }, None);
            } else {
                handed.extend(lines);
            }
        }
        prop_assert_eq!(handed, file);
    }
}
