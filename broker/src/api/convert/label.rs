//! Labels in the syntax of Kubernetes:
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>.

use std::collections::{BTreeMap, HashMap};

use crate::error::Error;

const MAX_LABELS: usize = 16;

/// The prefix of what the broker itself writes.
const OURS: &str = "podbroker.io";

/// Labels that a caller puts on its execution or asks for.
pub(super) fn labels(labels: HashMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    let refuse = |why: String| Err(Error::invalid_request("labels", why));
    if labels.len() > MAX_LABELS {
        return refuse(format!("at most {MAX_LABELS}, not {}", labels.len()));
    }
    for (key, value) in &labels {
        if !is_key(key) {
            return refuse(format!("{:?} is not a label key of Kubernetes", shortened(key)));
        }
        if key.split_once('/').is_some_and(|(prefix, _)| prefix == OURS) {
            return refuse(format!("{key:?}: keys under {OURS}/ belong to the broker"));
        }
        if !(value.is_empty() || is_name(value)) {
            return refuse(format!("{:?} is not a label value of Kubernetes", shortened(value)));
        }
    }
    Ok(labels.into_iter().collect())
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((prefix, name)) => prefix.len() <= 253 && prefix.split('.').all(is_dns_label) && is_name(name),
    }
}

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |c: &u8| c.is_ascii_alphanumeric() || b"-_.".contains(c);
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

/// Also the form of a container's name.
pub(super) fn is_dns_label(label: &str) -> bool {
    is_name(label) && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Result<BTreeMap<String, String>, Error> {
        labels([(key.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn what_kubernetes_takes_is_taken() {
        for (key, value) in
            [("a", ""), ("dag_id", "My.Dag_1"), ("example.com/x-y", "1"), (&*"k".repeat(63), &*"v".repeat(63))]
        {
            assert!(one(key, value).is_ok(), "{key} {value}");
        }
    }

    #[test]
    fn what_kubernetes_refuses_is_refused() {
        let long = "k".repeat(64);
        for (key, value) in [
            ("", "x"),
            ("-a", "x"),
            ("a-", "x"),
            ("a b", "x"),
            ("ä", "x"),
            ("/a", "x"),
            ("a/", "x"),
            ("a/b/c", "x"),
            ("Upper.com/a", "x"),
            (&long, "x"),
            ("a", &long),
            ("a", "-x"),
            ("a", "x y"),
            ("a", "x/y"),
            ("podbroker.io/tenant", "other"),
        ] {
            assert!(one(key, value).is_err(), "{key} {value}");
        }
    }

    #[test]
    fn there_are_at_most_16() {
        let many = |count: usize| labels((0..count).map(|i| (format!("k{i}"), String::new())).collect());
        assert!(many(16).is_ok());
        assert!(many(17).is_err());
    }
}
