//! What no single value can tell: whether the values fit together.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::error::Problem;
use super::{Config, ConfigError, Limits, Target, TargetKind, Token};
use crate::execution::{LONGEST_ORPHAN, PolicyRequest, TargetName};

impl Config {
    pub(super) fn check(&self) -> Result<(), Problem> {
        self.limits.check()?;
        self.logs.check()?;
        self.check_targets()?;
        self.archive.as_ref().map_or(Ok(()), |archive| archive.check(&self.targets))?;
        self.check_tokens()?;
        self.check_listener()
    }

    /// Checks the listener again after a flag has changed it.
    pub fn check_listen_flag(&self) -> Result<(), ConfigError> {
        self.check_listener().map_err(|problem| problem.in_file(std::path::Path::new("--listen")))
    }

    /// Nobody outside of this machine gets in without a token, and no token travels in the clear.
    fn check_listener(&self) -> Result<(), Problem> {
        let Self { listen, tls, tokens, .. } = self;
        if matches!(listen, super::Listen::Unix(_)) && tls.is_some() {
            return Err(Problem::new(
                "tls",
                "does not apply to a Unix socket; leave it out, or listen at ADDRESS:PORT",
            ));
        }
        if listen.is_local() {
            return Ok(());
        }
        let missing = match (tls, tokens.is_empty()) {
            (Some(_), false) => return Ok(()),
            (None, false) => "a certificate: add [tls] with certificate and key",
            (Some(_), true) => "at least one token: run `podbroker token` and add what it prints",
            (None, true) => {
                "a certificate and at least one token: add [tls] with certificate and key, run `podbroker token` and add \
                 what it prints"
            }
        };
        let reason = format!(
            "{listen} can be reached from other machines, which needs {missing}; or listen at 127.0.0.1 or unix:/PATH"
        );
        Err(Problem::new("listen", reason))
    }

    fn check_targets(&self) -> Result<(), Problem> {
        if self.targets.is_empty() {
            return Err(Problem::new("targets", "at least one is needed: add [[targets]] with name and kind"));
        }
        let mut names = BTreeSet::new();
        for (index, target) in self.targets.iter().enumerate() {
            let key = |key: &str| format!("targets[{index}].{key}");
            if !names.insert(&target.name) {
                return Err(Problem::new(key("name"), format!("two targets have the name {}", target.name)));
            }
            target.check().map_err(|problem| Problem::new(key(&problem.key), problem.reason))?;
        }
        Ok(())
    }

    fn check_tokens(&self) -> Result<(), Problem> {
        let names: BTreeSet<&TargetName> = self.targets.iter().map(|target| &target.name).collect();
        let mut digests = BTreeSet::new();
        for (index, token) in self.tokens.iter().enumerate() {
            let key = |key: &str| format!("tokens[{index}].{key}");
            if !digests.insert(token.sha256.as_bytes()) {
                return Err(Problem::new(key("sha256"), "two entries are for the same token"));
            }
            token.check(&names).map_err(|problem| Problem::new(key(&problem.key), problem.reason))?;
        }
        Ok(())
    }
}

impl Target {
    fn check(&self) -> Result<(), Problem> {
        let only_for_kubeconfig = |key: &str, is_set: bool| match self.kind {
            TargetKind::InCluster | TargetKind::Eks if is_set => {
                Err(Problem::new(key, "only applies to the kind \"kubeconfig\""))
            }
            TargetKind::Kubeconfig | TargetKind::InCluster | TargetKind::Eks => Ok(()),
        };
        only_for_kubeconfig("kubeconfig", self.kubeconfig.is_some())?;
        only_for_kubeconfig("context", self.context.is_some())?;
        self.check_eks()?;
        self.check_batch()?;
        self.check_executions()?;
        if self.result_image.trim().is_empty() {
            return Err(Problem::new("result_image", "must name an image"));
        }
        // The same range as for a request.
        PolicyRequest { ttl: Some(self.ttl), ..PolicyRequest::default() }
            .resolve(&self.defaults())
            .map_err(|error| Problem::new("ttl", error.why))?;
        Ok(())
    }
}

impl Token {
    fn check(&self, names: &BTreeSet<&TargetName>) -> Result<(), Problem> {
        // It is written into logs and into an annotation.
        if !(1..=128).contains(&self.subject.len()) || self.subject.contains(char::is_control) {
            return Err(Problem::new("subject", "must be 1 to 128 bytes without control characters"));
        }
        for name in self.targets.iter().filter(|name| *name != "*") {
            let parsed = name.parse::<TargetName>().map_err(|error| Problem::new("targets", error.to_string()))?;
            if !names.contains(&parsed) {
                return Err(Problem::new("targets", format!("no target has the name {name}")));
            }
        }
        Ok(())
    }
}

impl Limits {
    fn check(&self) -> Result<(), Problem> {
        // The contract promises callers no more for a manifest: the original request is kept in the pod's annotations.
        in_range("max_manifest_bytes", &self.max_manifest_bytes, 1 << 10..=256 << 10)?;
        // What a request has besides its manifest fits into 64 KiB.
        in_range("max_request_bytes", &self.max_request_bytes, self.max_manifest_bytes + (64 << 10)..=64 << 20)?;
        in_range("max_calls", &self.max_calls, 1..=1_000_000)?;
        in_range("max_watches", &self.max_watches, 1..=1_000_000)?;
        in_range("max_streams_per_connection", &self.max_streams_per_connection, 1..=1_000_000)?;
        for (key, value, range) in [
            ("max_connection_age", self.max_connection_age, 1..=86_400),
            ("max_connection_age_grace", self.max_connection_age_grace, 1..=86_400),
            ("drain", self.drain, 1..=3600),
            ("shortest_orphan", self.shortest_orphan, 1..=LONGEST_ORPHAN.as_secs()),
        ] {
            in_range(key, &value.as_secs(), range)
                .map_err(|problem| Problem { reason: format!("{} seconds", problem.reason), ..problem })?;
        }
        Ok(())
    }
}

fn in_range<T: PartialOrd + std::fmt::Display>(key: &str, value: &T, range: RangeInclusive<T>) -> Result<(), Problem> {
    if range.contains(value) {
        return Ok(());
    }
    Err(Problem::new(format!("limits.{key}"), format!("must be {} to {}", range.start(), range.end())))
}
