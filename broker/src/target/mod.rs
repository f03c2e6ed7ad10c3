//! Where executions run: the configured targets, and which of them a caller's selector means.
//!
//! The configuration is the only list. A selector carries no credential: the parts of a place only pick among the targets
//! that the caller may use, so a place tells nobody about the targets of others. A name does: asking for a
//! configured target that one may not use is answered with "may not use", because whoever sets up a caller needs to
//! know which of the two lists to mend. Names are not secret.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::auth::Caller;
use crate::backend::Backend;
use crate::error::Error;
use crate::execution::TargetName;

/// A target by its parts; an empty part is unknown, or matches anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The EKS cluster's name.
    pub cluster: String,
    /// The AWS region.
    pub region: String,
    /// The ARN of the role that the broker assumes.
    pub role_arn: String,
    /// The Kubernetes namespace.
    pub namespace: String,
}

impl Place {
    /// Whether every part that is asked for is this one's.
    fn matches(&self, asked: &Self) -> bool {
        let part = |mine: &str, asked: &str| asked.is_empty() || mine == asked;
        part(&self.cluster, &asked.cluster)
            && part(&self.region, &asked.region)
            && part(&self.role_arn, &asked.role_arn)
            && part(&self.namespace, &asked.namespace)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("cluster", &self.cluster),
            ("region", &self.region),
            ("role_arn", &self.role_arn),
            ("namespace", &self.namespace),
        ];
        let mut said = parts.iter().filter(|(_, value)| !value.is_empty());
        match said.next() {
            None => f.write_str("any place"),
            Some((name, value)) => {
                write!(f, "{name} {value}")?;
                said.try_for_each(|(name, value)| write!(f, ", {name} {value}"))
            }
        }
    }
}

/// Which target is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The one of that name.
    Name(TargetName),
    /// The only one with these parts.
    Place(Place),
}

/// How a target's credentials are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From a kubeconfig file.
    Kubeconfig,
    /// The broker's own service account.
    InCluster,
    /// An EKS cluster, by an assumed role.
    Eks,
}

/// One configured target.
#[derive(Clone)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// How its credentials are made.
    pub kind: Kind,
    /// The parts it was configured with.
    pub place: Place,
    /// What runs there.
    pub backend: Arc<dyn Backend>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The configured targets, by their names.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    targets: BTreeMap<TargetName, Target>,
}

impl Registry {
    /// All of them.
    pub fn new(targets: impl IntoIterator<Item = Target>) -> Self {
        Self { targets: targets.into_iter().map(|target| (target.name.clone(), target)).collect() }
    }

    /// Every target, whoever asks; for the process itself.
    pub fn all(&self) -> impl Iterator<Item = &Target> {
        self.targets.values()
    }

    /// Those that the caller may use, in the order of their names.
    pub fn of(&self, caller: &Caller) -> impl Iterator<Item = &Target> {
        self.all().filter(|target| caller.targets.contains(&target.name))
    }

    /// The one that the selector means.
    pub fn select(&self, caller: &Caller, selector: &Selector) -> Result<&Target, Error> {
        match selector {
            Selector::Name(name) => self.named(caller, name),
            Selector::Place(place) => self.placed(caller, place),
        }
    }

    /// The one of that name.
    pub fn named(&self, caller: &Caller, name: &TargetName) -> Result<&Target, Error> {
        let target =
            self.targets.get(name).ok_or_else(|| Error::NoSuchTarget { what: format!("has the name {name}") })?;
        if caller.targets.contains(name) {
            Ok(target)
        } else {
            Err(Error::NotAllowed { caller: caller.subject.clone(), target: name.to_string() })
        }
    }

    fn placed(&self, caller: &Caller, place: &Place) -> Result<&Target, Error> {
        let mut matching = self.of(caller).filter(|target| target.place.matches(place));
        match (matching.next(), matching.next()) {
            (None, _) => Err(Error::NoSuchTarget { what: format!("matches {place}") }),
            (Some(target), None) => Ok(target),
            (Some(first), Some(second)) => Err(Error::invalid_request(
                "target.place",
                format!(
                    "{place} matches more than one target, such as {} and {}; say more, or name one",
                    first.name, second.name
                ),
            )),
        }
    }
}
