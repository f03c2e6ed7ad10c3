use futures::FutureExt as _;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn hash(number: usize) -> String {
    format!("{number:016}")
}

fn word(hashes: &[String]) -> Word {
    Word { lease: "l".to_owned(), until: at(0), followed: followed(hashes) }
}

/// Whether the next Lease was called for.
fn hurries(orphans: &Orphans) -> bool {
    orphans.hurry.notified().now_or_never().is_some()
}

#[test]
fn a_lease_names_whom_it_names_and_nobody_else() {
    let hashes = ["abcdefghijkl0000".to_owned(), "mnopqrstuvwx0000".to_owned()];
    let said = word(&hashes);
    assert!(hashes.iter().all(|hash| said.names(hash)));
    assert!(!said.names("bcdefghijklm0000"), "not across the border of two");
    assert!(!word(&[]).names("abcdefghijkl0000"));
}

#[test]
fn more_than_an_annotation_holds_is_everyone() {
    let many: Vec<_> = (0..MOST).map(|number| format!("{number:012}abcd")).collect();
    assert!(followed(&many).len() < 256 << 10);
    assert!(!word(&many).names("zzzzzzzzzzzzzzzz"));
    let more: Vec<_> = (0..=MOST).map(hash).collect();
    assert!(word(&more).names("zzzzzzzzzzzzzzzz"));
}

#[test]
fn a_lease_holds_until_the_next_one_is_due() {
    let lease = |spec: Value| {
        let lease = json!({ "metadata": { "name": "l", "annotations": { FOLLOWED: "abc" } }, "spec": spec });
        Word::of(serde_json::from_value(lease).unwrap())
    };
    let renewed = json!({ "renewTime": "1970-01-01T00:01:40.000000Z", "leaseDurationSeconds": 20 });
    assert_eq!(lease(renewed).unwrap().until, at(120));
    assert_eq!(lease(json!({ "renewTime": "1970-01-01T00:01:40.000000Z" })), None);
    assert_eq!(lease(json!({ "leaseDurationSeconds": 20 })), None);
}

#[test]
fn what_cannot_be_known_only_lengthens_the_time() {
    let settle = SETTLE.as_secs();
    let orphans = Orphans::default();
    orphans.recovered(at(1000));
    assert_eq!(orphans.due("x", Some(at(0)), HOUR), at(1000 + 3600 + settle), "not known before the beginning");
    assert_eq!(orphans.due("x", Some(at(5000)), HOUR), at(5000 + 3600 + settle), "from its creation");
    orphans.saw("x", at(6000));
    orphans.saw("x", at(5500));
    assert_eq!(orphans.due("x", Some(at(0)), HOUR), at(6000 + 3600 + settle), "from the latest word");
    orphans.recovered(at(9500));
    assert_eq!(orphans.due("x", Some(at(0)), HOUR), at(9500 + 1200 + settle), "others speak first after a silence");
    orphans.recovered(at(7000));
    assert_eq!(orphans.due("x", Some(at(0)), HOUR), at(6000 + 3600 + settle));
    orphans.forget("x");
    assert_eq!(orphans.due("x", Some(at(6100)), HOUR), at(6100 + 3600 + settle));
}

#[test]
fn a_lease_is_written_early_only_for_whom_the_next_one_would_be_late() {
    let orphans = Orphans::default();
    orphans.recovered(at(0));
    orphans.join("x", Some(at(100)), HOUR, at(100));
    assert!(hurries(&orphans), "the first one begins");
    orphans.known().next = Some(at(100 + 1200));
    orphans.join("y", Some(at(150)), HOUR, at(150));
    assert!(!hurries(&orphans), "a new one goes with the next");
    orphans.join("z", Some(at(160)), Duration::from_mins(5), at(160));
    assert!(hurries(&orphans), "one that is soon left alone does not");
    orphans.known().next = Some(at(3000 + 1200));
    orphans.join("w", Some(at(0)), HOUR, at(3000));
    assert!(hurries(&orphans), "nor one that nobody has followed for long");
}
