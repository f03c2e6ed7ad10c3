//! Names: of an installation, a tenant, a target and an execution, and the object names made of them.
//!
//! The pod's name is a pure function of (instance, tenant, target, execution id, attempt), or for a member of a group of
//! (instance, tenant, target, group, generation, attempt). That is what makes a submit exactly-once: whoever repeats it, at
//! whichever replica, asks the API server for the same name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {value:?} {why}")]
pub struct IdError {
    what: &'static str,
    value: String,
    why: &'static str,
}

impl IdError {
    fn new(what: &'static str, value: &str, why: &'static str) -> Self {
        // A hostile value may be megabytes long; an error names its beginning.
        let value = value.chars().take(64).collect();
        Self { what, value, why }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:path, $why:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text of it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(value: &str) -> Result<Self, IdError> {
                if $valid(value) { Ok(Self(value.to_owned())) } else { Err(IdError::new($what, value, $why)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(value: String) -> Result<Self, IdError> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// One installation of the broker: its replicas share it, and it keeps two installations in one namespace apart.
    InstanceId, "instance", is_dns_label, "must be a DNS label: 1 to 63 of a-z 0-9 -, a letter or digit at both ends"
);
name_type!(
    /// Whose executions they are. A configured word, never the subject of a token, since that may change hands.
    Tenant, "tenant", is_dns_label, "must be a DNS label: 1 to 63 of a-z 0-9 -, a letter or digit at both ends"
);
name_type!(
    /// A configured target.
    TargetName, "target", is_dns_label, "must be a DNS label: 1 to 63 of a-z 0-9 -, a letter or digit at both ends"
);
name_type!(
    /// The caller's name for an execution, unique within instance, tenant and target.
    ExecutionId, "execution id", is_execution_id,
    "must be 1 to 200 characters of A-Z a-z 0-9 . _ : @ = + ~ -, the first one a letter or a digit"
);
name_type!(
    /// The caller's name for executions that take each other's place, unique within instance, tenant and target.
    GroupId, "group id", is_execution_id,
    "must be 1 to 200 characters of A-Z a-z 0-9 . _ : @ = + ~ -, the first one a letter or a digit"
);

fn is_dns_label(value: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let edge = |c: Option<&u8>| c.is_some_and(|c| *c != b'-');
    let bytes = value.as_bytes();
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|c| inner(*c))
}

fn is_execution_id(value: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || b"._:@=+~-".contains(&c);
    let bytes = value.as_bytes();
    bytes.len() <= 200 && bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.iter().all(|c| inner(*c))
}

/// What callers address an execution by: `targets/{target}/executions/{execution_id}`. The tenant comes from the caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExecutionName {
    /// Where it runs.
    pub target: TargetName,
    /// Which one it is.
    pub id: ExecutionId,
}

impl FromStr for ExecutionName {
    type Err = IdError;

    fn from_str(value: &str) -> Result<Self, IdError> {
        let malformed = || IdError::new("execution name", value, "must be targets/{target}/executions/{execution_id}");
        let (target, id) =
            value.strip_prefix("targets/").and_then(|rest| rest.split_once("/executions/")).ok_or_else(malformed)?;
        Ok(Self { target: target.parse()?, id: id.parse()? })
    }
}

impl fmt::Display for ExecutionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "targets/{}/executions/{}", self.target, self.id)
    }
}

/// The full identity of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The installation that runs it.
    pub instance: InstanceId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where it runs.
    pub target: TargetName,
    /// Which one it is.
    pub id: ExecutionId,
}

/// The full identity of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupAddress {
    /// The installation that runs it.
    pub instance: InstanceId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where it runs.
    pub target: TargetName,
    /// Which one it is.
    pub id: GroupId,
}

/// How many characters of the hash stand in a name: 80 bits, so that a collision needs about 10^12 executions.
const HASH_LENGTH: usize = 16;

/// How much of the id stands readable in a pod name. With hash and attempt the name stays under the 63 characters that
/// Kubernetes keeps of it as the host name.
const SLUG_LENGTH: usize = 40;

/// As `SLUG_LENGTH`, with room for a generation of four digits.
const GROUP_SLUG_LENGTH: usize = 35;

impl Address {
    /// A short name for the four parts: 16 characters of a-z and 2-7, valid as a label and inside a DNS name.
    pub fn hash(&self) -> String {
        hash([self.instance.as_str(), self.tenant.as_str(), self.target.as_str(), self.id.as_str()])
    }

    /// The name of the attempt's pod: a readable slug, the hash, the attempt's number.
    pub fn pod_name(&self, attempt: u32) -> String {
        format!("{}-{}-{attempt}", slug(self.id.as_str(), SLUG_LENGTH), self.hash())
    }

    /// What callers address it by.
    pub fn name(&self) -> ExecutionName {
        ExecutionName { target: self.target.clone(), id: self.id.clone() }
    }
}

impl GroupAddress {
    /// A short name for the four parts, as `Address::hash`. A fifth part keeps a group apart from an execution of its name.
    pub fn hash(&self) -> String {
        hash([self.instance.as_str(), self.tenant.as_str(), self.target.as_str(), self.id.as_str(), "group"])
    }

    /// The name of the pod of an attempt of the group's execution number `generation`.
    pub fn pod_name(&self, generation: u32, attempt: u32) -> String {
        format!("{}-{}-{generation}-{attempt}", slug(self.id.as_str(), GROUP_SLUG_LENGTH), self.hash())
    }
}

fn hash<const N: usize>(parts: [&str; N]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // The length in front keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    base32(&hasher.finalize(), HASH_LENGTH)
}

/// The id as far as a DNS label can show it. Only for readers; the hash tells executions apart.
fn slug(id: &str, length: usize) -> String {
    let mut slug = String::with_capacity(length);
    for c in id.chars().flat_map(char::to_lowercase) {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if slug.len() < length && !(c == '-' && (slug.is_empty() || slug.ends_with('-'))) {
            slug.push(c);
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// The first characters of the lower-case base 32 form (RFC 4648 alphabet, no padding).
fn base32(bytes: &[u8], length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |index: usize| (bytes[index / 8] >> (7 - index % 8)) & 1;
    (0..length)
        .map(|char| (0..5).fold(0, |value, i| value << 1 | bit(char * 5 + i)))
        .map(|value| ALPHABET[usize::from(value)] as char)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(tenant: &str, target: &str, id: &str) -> Address {
        Address {
            instance: "main".parse().unwrap(),
            tenant: tenant.parse().unwrap(),
            target: target.parse().unwrap(),
            id: id.parse().unwrap(),
        }
    }

    #[test]
    fn a_pod_name_is_the_same_for_ever() {
        // A change of this value would let a new broker start again what an old one has started.
        assert_eq!(address("default", "prod", "a").hash(), "6oqrakotsp5chg2g");
        assert_eq!(
            address("default", "prod", "etl.load_orders:2026-11-21@1").pod_name(1),
            "etl-load-orders-2026-11-21-1-slgvmirenqmnjaxo-1"
        );
    }

    fn group(id: &str) -> GroupAddress {
        let Address { instance, tenant, target, .. } = address("default", "prod", "a");
        GroupAddress { instance, tenant, target, id: id.parse().unwrap() }
    }

    #[test]
    fn a_member_of_a_group_is_named_by_the_group_for_ever() {
        assert_eq!(group("etl.load:1").pod_name(3, 2), "etl-load-1-sztlaqkhp4swhaco-3-2");
    }

    #[test]
    fn a_group_and_an_execution_of_its_name_are_apart() {
        assert_ne!(group("a").hash(), address("default", "prod", "a").hash());
    }

    #[test]
    fn moving_a_character_between_the_parts_changes_the_name() {
        assert_ne!(address("ab", "c", "x").hash(), address("a", "bc", "x").hash());
    }

    #[test]
    fn names_that_are_not_ours_are_refused() {
        for bad in ["", "targets/a", "targets/a/executions/", "targets/A/executions/x", "targets/a/executions/-x", "x"]
        {
            assert!(bad.parse::<ExecutionName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_id_makes_a_valid_pod_name(id in "[A-Za-z0-9][A-Za-z0-9._:@=+~-]{0,199}", attempt in 1_u32..1000) {
            let name = address("t", "p", &id).pod_name(attempt);
            prop_assert!(is_dns_label(&name), "{}", name);
        }

        #[test]
        fn every_group_makes_a_valid_pod_name(
            id in "[A-Za-z0-9][A-Za-z0-9._:@=+~-]{0,199}", generation in 1_u32..10_000, attempt in 1_u32..1000
        ) {
            let name = group(&id).pod_name(generation, attempt);
            prop_assert!(is_dns_label(&name), "{}", name);
        }

        #[test]
        fn a_name_survives_printing_and_parsing(id in "[A-Za-z0-9][A-Za-z0-9._:@=+~-]{0,199}") {
            let name = address("t", "p", &id).name();
            prop_assert_eq!(name.to_string().parse::<ExecutionName>().unwrap(), name);
        }
    }
}
