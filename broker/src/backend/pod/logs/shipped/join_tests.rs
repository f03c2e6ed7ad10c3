//! Every shape in which a shipper sends a log, cut at every line and joined again: what comes is what is behind the cut, or a gap.

use proptest::prelude::*;
use serde_json::json;

use super::super::super::super::lines::Splitter;
use super::super::super::super::place::after_line;
use super::*;
use crate::backend::log_group::ShippedEvent;
use crate::execution::ContainerRole;

const BEGIN: i64 = 1_795_248_000_000_000_000;

/// What a container wrote: nanoseconds after the beginning, and the content.
type Written = Vec<(i64, String)>;

/// How it is shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Records with the runtime's time.
    Record,
    /// The same in the runtime's pieces of so many bytes.
    Pieces(usize),
    /// Lines alone.
    Bare,
    /// Lines alone, stamped so many milliseconds after they were written.
    Late(i64),
}

fn ship(shape: Shape, written: &Written) -> Vec<Entry> {
    let record = |nanos: i64, tag: &str, text: &str| {
        let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
        let log = json!({ "time": format!("{time:.9}"), "stream": "stdout", "_p": tag, "log": text });
        ShippedEvent { millis: nanos / MILLI, message: log.to_string() }
    };
    let mut events = Vec::new();
    for (after, text) in written {
        let nanos = BEGIN + after;
        match shape {
            Shape::Record => events.push(record(nanos, "F", text)),
            Shape::Pieces(size) => {
                let pieces: Vec<_> = text.as_bytes().chunks(size).map(|piece| str::from_utf8(piece).unwrap()).collect();
                let count = pieces.len();
                for (index, piece) in pieces.into_iter().enumerate() {
                    let tag = if index + 1 == count { "F" } else { "P" };
                    // The runtime stamps each piece on its own.
                    events.push(record(nanos + i64::try_from(index).unwrap(), tag, piece));
                }
                if count == 0 {
                    events.push(record(nanos, "F", ""));
                }
            }
            Shape::Bare => events.push(ShippedEvent { millis: nanos / MILLI, message: text.clone() }),
            Shape::Late(by) => events.push(ShippedEvent { millis: nanos / MILLI + by, message: text.clone() }),
        }
    }
    events.into_iter().map(Entry::of).collect()
}

/// What the kubelet gives of it.
fn kubelet(written: &Written) -> Vec<LogLine> {
    let mut splitter = Splitter::default();
    for (after, text) in written {
        let time = Timestamp::from_nanosecond(i128::from(BEGIN + after)).unwrap();
        splitter.push(format!("{time:.9} {text}\n").as_bytes());
    }
    std::iter::from_fn(|| splitter.next_line()).collect()
}

fn instance() -> Instance {
    Instance { attempt: 1, container: "main".to_owned(), restart: 0, role: ContainerRole::Deciding }
}

/// The contents that come after the position, with `GAP` for gaps, and the position behind them.
fn joined(position: InstancePosition, entries: Vec<Entry>) -> (Vec<String>, InstancePosition) {
    let mut join = Join::new(instance(), position, None);
    let mut items = Vec::new();
    for entry in entries {
        join.take(entry);
        items.extend(join.take_ready());
    }
    join.settle();
    items.extend(join.take_ready());
    let (mut told, mut at) = (Vec::new(), position);
    for item in items {
        match item {
            LogItem::Lines { lines, before, after } => {
                assert!(position.skip > 0 || before.position == at.position, "items follow one another");
                at = after;
                told.extend(lines.iter().map(|line| String::from_utf8(line.content.to_vec()).unwrap()));
            }
            LogItem::Gap(gap) => {
                assert_eq!(gap.reason, GapReason::ResumeAmbiguous);
                told.push("GAP".to_owned());
            }
            LogItem::Notice(_) | LogItem::End(_) => unreachable!(),
        }
    }
    (told, at)
}

/// Behind so many of the lines.
fn behind(lines: &[LogLine]) -> InstancePosition {
    InstancePosition { position: lines.iter().fold(Position::Start, after_line_of), skip: 0 }
}

fn after_line_of(position: Position, line: &LogLine) -> Position {
    after_line(position, line)
}

fn texts(lines: &[LogLine]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8(line.content.to_vec()).unwrap()).collect()
}

fn lines(count: i64, step: i64) -> Written {
    (0..count).map(|number| (123_456 + number * step, format!("line {number}"))).collect()
}

#[test]
fn what_was_read_live_up_to_any_line_goes_on_with_the_next() {
    for shape in [Shape::Record, Shape::Pieces(3), Shape::Bare] {
        // Some in one millisecond, some seconds apart.
        for step in [1_001, 300_017, 5_000_017, 2_000_000_017] {
            let written = lines(20, step);
            let live = kubelet(&written);
            for cut in 0..=live.len() {
                let (told, _) = joined(behind(&live[..cut]), ship(shape, &written));
                assert_eq!(told, texts(&live[cut..]), "{shape:?} {step} {cut}");
            }
        }
    }
}

#[test]
fn what_was_told_of_it_up_to_any_line_goes_on_with_the_next() {
    for shape in [Shape::Record, Shape::Pieces(3), Shape::Bare] {
        let written = lines(12, 300_017);
        let live = kubelet(&written);
        for cut in 0..=live.len() {
            for again in cut..=live.len() {
                let (_, at) = joined(behind(&live[..cut]), ship(shape, &written[..again].to_vec()));
                let (told, _) = joined(at, ship(shape, &written));
                // Where nothing came the second reading is like the first.
                assert_eq!(told, texts(&live[again..]), "{shape:?} {cut} {again}");
            }
        }
    }
}

#[test]
fn a_watcher_that_went_inside_of_a_chunk_goes_on_there() {
    let written = lines(9, 300_017);
    let live = kubelet(&written);
    for shape in [Shape::Record, Shape::Bare] {
        let position = InstancePosition { skip: 2, ..behind(&live[..3]) };
        assert_eq!(joined(position, ship(shape, &written)).0, texts(&live[5..]), "{shape:?}");
    }
}

#[test]
fn a_last_line_that_is_not_there_is_a_gap_before_what_is_behind_it() {
    let written = lines(6, 5_000_017);
    let live = kubelet(&written);
    for shape in [Shape::Record, Shape::Bare] {
        let mut without = written.clone();
        without.remove(2);
        let (told, _) = joined(behind(&live[..3]), ship(shape, &without));
        assert_eq!(told, ["GAP", "line 3", "line 4", "line 5"], "{shape:?}");
    }
}

#[test]
fn a_last_line_that_has_changed_is_a_gap() {
    let written = lines(6, 5_000_017);
    let live = kubelet(&written);
    for shape in [Shape::Record, Shape::Bare] {
        let mut changed = written.clone();
        changed[2].1 = "other".to_owned();
        let (told, _) = joined(behind(&live[..3]), ship(shape, &changed));
        assert_eq!(told, ["GAP", "line 3", "line 4", "line 5"], "{shape:?}");
    }
}

#[test]
fn of_equal_lines_in_one_millisecond_none_comes_twice_and_a_gap_says_what_is_not_known() {
    let written: Written =
        (0..4).map(|number| (1 + number, "tick".to_owned())).chain([(9_000_001, "last".to_owned())]).collect();
    let live = kubelet(&written);
    assert_eq!(joined(behind(&live[..2]), ship(Shape::Bare, &written)).0, ["GAP", "last"]);
    // The runtime's own times tell them apart.
    assert_eq!(joined(behind(&live[..2]), ship(Shape::Record, &written)).0, ["tick", "tick", "last"]);
}

#[test]
fn lines_that_the_shipper_has_stamped_later_are_found_and_said_to_be_uncertain() {
    let written = lines(6, 5_000_017);
    let live = kubelet(&written);
    let (told, _) = joined(behind(&live[..3]), ship(Shape::Late(400), &written));
    assert_eq!(told, ["GAP", "line 3", "line 4", "line 5"]);
}

#[test]
fn a_long_line_comes_in_the_pieces_of_the_kubelet() {
    let long = "x".repeat(PIECE * 2 + 100);
    let written: Written = vec![(1, "before".to_owned()), (2_000_001, long), (4_000_001, "after".to_owned())];
    let live = kubelet(&written);
    assert_eq!(live.len(), 5);
    for shape in [Shape::Record, Shape::Pieces(16 << 10), Shape::Bare] {
        for cut in 0..=live.len() {
            let mut join = Join::new(instance(), behind(&live[..cut]), None);
            for entry in ship(shape, &written) {
                join.take(entry);
            }
            join.settle();
            let items = join.take_ready();
            let found: Vec<_> = items
                .into_iter()
                .flat_map(|item| match item {
                    LogItem::Lines { lines, .. } => lines,
                    _ => Vec::new(),
                })
                .map(|line| (line.content, line.continues, line.partial))
                .collect();
            let expected: Vec<_> =
                live[cut..].iter().map(|line| (line.content.clone(), line.continues, line.partial)).collect();
            // Inside of a line of one moment milliseconds do not tell the equal pieces apart, and a gap says so.
            if shape != Shape::Bare || !(2..=3).contains(&cut) {
                assert!(found == expected, "{shape:?} {cut}: {} {}", found.len(), expected.len());
            }
        }
    }
}

#[test]
fn lines_that_the_shipper_has_joined_are_lines_again() {
    let event = |text: &str| Entry {
        time: Time::Exact(BEGIN + 1),
        content: text.to_owned().into(),
        is_partial: false,
        is_cut: false,
    };
    assert_eq!(
        joined(InstancePosition::default(), vec![event("Traceback:\n  at x\n\n  at y")]).0,
        ["Traceback:", "  at x", "", "  at y"]
    );
}

#[test]
fn a_line_that_the_shipper_has_cut_is_a_gap() {
    let mut entries = ship(Shape::Bare, &lines(2, 5_000_017));
    entries.insert(1, Entry { is_cut: true, ..entries[0].clone() });
    assert_eq!(joined(InstancePosition::default(), entries).0, ["line 0", "GAP", "line 1"]);
}

#[test]
fn what_was_written_before_a_wanted_moment_is_left_out() {
    let written = lines(4, 1_000_000_000);
    let since = Timestamp::from_nanosecond(i128::from(BEGIN + 1_500_000_000)).unwrap();
    let mut join = Join::new(instance(), InstancePosition::default(), Some(since));
    assert_eq!(join.from(), Some(BEGIN / MILLI + 1000));
    for entry in ship(Shape::Record, &written) {
        join.take(entry);
    }
    join.take_ready();
    assert_eq!(join.lines(), 2);
}

proptest! {
    #[test]
    fn nothing_is_lost_or_doubled_without_a_gap(
        steps in prop::collection::vec((0_i64..3_000_000, 0_u8..4), 1..40),
        cut in any::<prop::sample::Index>(),
        shape in prop::sample::select(vec![Shape::Record, Shape::Pieces(1), Shape::Bare]),
    ) {
        let mut at = 0;
        let written: Written = steps.iter().map(|(step, text)| { at += step + 1; (at * 10 + 1, text.to_string()) }).collect();
        let live = kubelet(&written);
        let cut = cut.index(live.len() + 1);
        let (told, _) = joined(behind(&live[..cut]), ship(shape, &written));
        let expected = texts(&live[cut..]);
        if told.first().is_some_and(|first| first == "GAP") {
            prop_assert_eq!(shape, Shape::Bare);
            prop_assert!(expected.ends_with(&told[1..]), "{:?} {:?}", told, expected);
        } else {
            prop_assert_eq!(told, expected);
        }
    }
}
