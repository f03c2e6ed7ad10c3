//! The jobs that were made for an attempt, whoever made them and however often.
//!
//! Lists lag behind submits, and nobody says by how much: who looks has waited for a settling delay, and looks again later.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_batch::types::{JobSummary, KeyValuesPair};

use super::calls::{Calls, Failed, Operation};
use super::plan::key_tag;
use super::{describe, job};
use crate::backend::job::Job;

/// All jobs of that name and key in those queues, oldest first.
pub(super) async fn find(
    calls: &Calls,
    queues: impl Iterator<Item = &str>,
    name: &str,
    key: &str,
) -> Result<Vec<Job>, Failed> {
    let mut listed = BTreeMap::new();
    for queue in queues {
        for summary in list(calls, queue, name).await? {
            // The filter takes no account of case.
            if let Some(job) = job::listed(&summary, key).filter(|job| job.name == name) {
                listed.insert(job.id.clone(), job);
            }
        }
    }
    let ids: BTreeSet<String> = listed.keys().cloned().collect();
    let described = describe::all(calls, &ids).await?;
    let tag = key_tag(key);
    for job in described {
        // Somebody else's job of that name is not ours. One that is not described yet bears a name that only its attempt has.
        if job.key == tag {
            listed.insert(job.id.clone(), Job { key: key.to_owned(), ..job });
        } else {
            listed.remove(&job.id);
        }
    }
    let mut jobs: Vec<_> = listed.into_values().collect();
    jobs.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    Ok(jobs)
}

async fn list(calls: &Calls, queue: &str, name: &str) -> Result<Vec<JobSummary>, Failed> {
    let filter = KeyValuesPair::builder().name("JOB_NAME").values(name).build();
    let (mut jobs, mut token) = (Vec::new(), None);
    loop {
        let request = calls.client().list_jobs().job_queue(queue).filters(filter.clone()).set_next_token(token);
        let answer = calls.make(Operation::ListJobs, request.send()).await?;
        jobs.extend(answer.job_summary_list.unwrap_or_default());
        token = answer.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(jobs);
        }
    }
}
