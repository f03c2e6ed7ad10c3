//! Job definitions: which one a name means, and those that the broker writes for pods, each once for all pods that differ in
//! nothing but arguments.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_batch::types::JobDefinition;
use serde_json::{Map, Value};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use tracing::info;

use super::calls::{Calls, Failed, Operation};
use super::plan::DIGEST_TAG;
use super::wire;

/// A definition that somebody has deregistered is found again, or made anew, after this at the latest.
const FRESH: Duration = Duration::from_hours(1);
/// One that was just found or made is not to blame for a refusal, which must not make another one of it.
const BLAMELESS: Duration = Duration::from_mins(1);
/// How many are remembered; more means that pods differ in everything, and nothing is gained.
const REMEMBERED: usize = 1_000;

const ACTIVE: &str = "ACTIVE";

/// How a definition is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Query<'a> {
    /// One revision, by `name:revision` or by ARN.
    Revision(&'a str),
    /// The newest active revision of a name.
    Newest(&'a str),
}

fn query(text: &str) -> Query<'_> {
    let name = text.rsplit_once(":job-definition/").map_or(text, |(_, name)| name);
    if name.contains(':') { Query::Revision(text) } else { Query::Newest(name) }
}

/// The definition that a submit would use; none if there is none. One that is asked for by its revision may be inactive.
pub(super) async fn describe(calls: &Calls, name: &str) -> Result<Option<JobDefinition>, Failed> {
    let found = match query(name) {
        Query::Revision(revision) => {
            let request = calls.client().describe_job_definitions().job_definitions(revision).send();
            calls.make(Operation::DescribeJobDefinitions, request).await?.job_definitions.unwrap_or_default()
        }
        Query::Newest(name) => active(calls, name).await?,
    };
    Ok(newest(found))
}

fn newest(definitions: Vec<JobDefinition>) -> Option<JobDefinition> {
    definitions.into_iter().max_by_key(|definition| definition.revision)
}

async fn active(calls: &Calls, name: &str) -> Result<Vec<JobDefinition>, Failed> {
    let (mut all, mut token) = (Vec::new(), None);
    loop {
        let request = calls.client().describe_job_definitions().job_definition_name(name).status(ACTIVE);
        let answer = calls.make(Operation::DescribeJobDefinitions, request.set_next_token(token).send()).await?;
        all.extend(answer.job_definitions.unwrap_or_default());
        token = answer.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(all);
        }
    }
}

pub(super) fn is_active(definition: &JobDefinition) -> bool {
    definition.status.as_deref() == Some(ACTIVE)
}

/// Definitions that the broker has written, or found written.
#[derive(Debug, Default)]
pub(super) struct Registered {
    known: Mutex<HashMap<String, (String, Instant)>>,
    /// Held across requests, on purpose: a hundred pods of a kind register one definition.
    registering: AsyncMutex<()>,
}

impl Registered {
    fn known(&self, name: &str) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|(_, since)| since.elapsed() < FRESH).map(|(revision, _)| revision.clone())
    }

    /// `name:revision` of the definition, which is registered unless there is one that says the same.
    pub(super) async fn revision(&self, calls: &Calls, plan: &Map<String, Value>) -> Result<String, Failed> {
        let name = plan.get("jobDefinitionName").and_then(Value::as_str).unwrap_or_default();
        if let Some(revision) = self.known(name) {
            return Ok(revision);
        }
        let _registering = self.registering.lock().await;
        if let Some(revision) = self.known(name) {
            return Ok(revision);
        }
        let digest = plan.get("tags").and_then(|tags| tags.get(DIGEST_TAG)).and_then(Value::as_str);
        let mut there = active(calls, name).await?;
        // The name alone proves nothing: somebody may have registered another revision of it.
        there.retain(|other| other.tags.as_ref().and_then(|tags| tags.get(DIGEST_TAG)).map(String::as_str) == digest);
        let number = if let Some(number) = newest(there).and_then(|definition| definition.revision) {
            number
        } else {
            let request = wire::register(calls.client().register_job_definition(), plan).send();
            let answer = Box::pin(calls.make(Operation::RegisterJobDefinition, request)).await?;
            info!(definition = name, "registered a job definition");
            answer.revision.unwrap_or_default()
        };
        let revision = format!("{name}:{number}");
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(name.to_owned(), (revision.clone(), Instant::now()));
        Ok(revision)
    }

    /// A submit with it was refused. Whether it may have been deregistered since it was found, and is looked for again.
    pub(super) fn doubt(&self, plan: &Map<String, Value>) -> bool {
        let name = plan.get("jobDefinitionName").and_then(Value::as_str).unwrap_or_default();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = known.get(name).is_some_and(|(_, since)| since.elapsed() > BLAMELESS);
        is_old && known.remove(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_asked_for_as_it_was_named() {
        let arn = "arn:aws:batch:us-east-1:111122223333:job-definition/etl";
        let revision = format!("{arn}:3");
        assert_eq!(query("etl"), Query::Newest("etl"));
        assert_eq!(query(arn), Query::Newest("etl"));
        assert_eq!(query("etl:3"), Query::Revision("etl:3"));
        assert_eq!(query(&revision), Query::Revision(&revision));
    }
}
