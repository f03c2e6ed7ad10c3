//! The names of log streams: a pattern from the configuration, filled in for a container, and which of the names that begin so are of
//! that container. Pure.
//!
//! Fluent Bit makes the name from a prefix and the path of the file, which has the pod, its namespace, the container and the
//! container's id. That id is known to nobody else, so a name is looked for by all that is before it.

use crate::backend::log_group::ShippedContainer;

/// A container's id: 64 digits, of which some setups show the first ones only.
const ID: std::ops::RangeInclusive<usize> = 8..=64;

/// What the name of a container's stream begins with; nothing if the pattern wants the node, and that is not known.
pub(super) fn prefix(pattern: &str, of: &ShippedContainer, namespace: &str) -> Option<String> {
    if pattern.contains("{node}") && of.node.is_empty() {
        return None;
    }
    // One after the other: what is filled in is a DNS name and has no braces.
    let filled = pattern.replace("{node}", &of.node).replace("{namespace}", namespace);
    Some(filled.replace("{pod}", &of.pod).replace("{container}", &of.container))
}

/// Whether a name that begins so is of that container, and not of one whose name only begins alike.
pub(super) fn is_of(name: &str, prefix: &str) -> bool {
    let Some(rest) = name.strip_prefix(prefix) else { return false };
    let rest = rest.strip_suffix(".log").unwrap_or(rest);
    let is_id = ID.contains(&rest.len()) && rest.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    rest.is_empty() || is_id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LOG_STREAM_PREFIX;

    fn main(node: &str) -> ShippedContainer {
        let (pod, node, container) = ("aws-batch.a-1".to_owned(), node.to_owned(), "main".to_owned());
        ShippedContainer { pod, node, container }
    }

    #[test]
    fn a_pattern_is_filled_in() {
        let of = |pattern: &str, node: &str| prefix(pattern, &main(node), "jobs");
        assert_eq!(of(LOG_STREAM_PREFIX, "n1").unwrap(), "n1-application.var.log.containers.aws-batch.a-1_jobs_main-");
        assert_eq!(of(LOG_STREAM_PREFIX, ""), None);
        assert_eq!(of("{pod}.{container}", "").unwrap(), "aws-batch.a-1.main");
    }

    #[test]
    fn the_stream_of_another_container_is_not_taken_for_it() {
        let id = "0123456789abcdef".repeat(4);
        let rests = ["", "-2", "-2-", "2", ".", "-sidecar", "/x"];
        let prefix = prefix(LOG_STREAM_PREFIX, &main("n1"), "jobs").unwrap();
        assert!(is_of(&format!("{prefix}{id}.log"), &prefix));
        assert!(is_of(&format!("{prefix}{}", &id[..12]), &prefix));
        assert!(is_of("p.main", "p.main"));
        for rest in &rests[1..] {
            assert!(!is_of(&format!("{prefix}{}-{id}.log", rest.trim_start_matches('-')), &prefix), "{rest}");
            assert!(!is_of(&format!("p.main{rest}"), "p.main"), "{rest}");
        }
        assert!(!is_of("other", &prefix));
    }
}
