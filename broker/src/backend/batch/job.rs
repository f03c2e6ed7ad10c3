//! From what AWS Batch says of a job to the engine's words: a pure function.

use aws_sdk_batch::types::{
    EksAttemptContainerDetail, EksAttemptDetail, EksContainerDetail, EksPodPropertiesDetail, JobDetail, JobStatus,
    JobSummary,
};
use jiff::Timestamp;

use super::plan::KEY_TAG;
use crate::backend::job::{Job, JobAttempt, JobContainer, JobState};

/// The job; none if AWS Batch does not say which or where it stands.
pub(super) fn job(detail: &JobDetail) -> Option<Job> {
    let array = detail.array_properties.as_ref().filter(|array| array.index.is_none() && array.size.is_some());
    Some(Job {
        id: detail.job_id.clone()?,
        name: detail.job_name.clone().unwrap_or_default(),
        key: detail.tags.as_ref().and_then(|tags| tags.get(KEY_TAG)).cloned().unwrap_or_default(),
        state: state(detail.status.as_ref()?)?,
        reason: detail.status_reason.clone().unwrap_or_default(),
        is_terminated: detail.is_terminated == Some(true) || detail.is_cancelled == Some(true),
        created: moment(detail.created_at),
        started: moment(detail.started_at),
        stopped: moment(detail.stopped_at),
        children: array.map(|array| {
            let summary = array.status_summary.iter().flatten();
            let mut children: Vec<_> = summary
                .filter_map(|(name, count)| {
                    Some((state(&JobStatus::from(name.as_str()))?, u32::try_from(*count).ok()?))
                })
                .filter(|(_, count)| *count > 0)
                .collect();
            children.sort_unstable();
            children
        }),
        attempts: attempts(detail),
    })
}

/// As much of it as a list tells.
pub(super) fn listed(summary: &JobSummary, key: &str) -> Option<Job> {
    Some(Job {
        id: summary.job_id.clone()?,
        name: summary.job_name.clone().unwrap_or_default(),
        key: key.to_owned(),
        state: summary.status.as_ref().and_then(state).unwrap_or(JobState::Submitted),
        reason: summary.status_reason.clone().unwrap_or_default(),
        is_terminated: false,
        created: moment(summary.created_at),
        started: moment(summary.started_at),
        stopped: moment(summary.stopped_at),
        children: None,
        attempts: Vec::new(),
    })
}

/// As lists, descriptions and events say it.
pub(super) fn state(status: &JobStatus) -> Option<JobState> {
    Some(match status {
        JobStatus::Submitted => JobState::Submitted,
        JobStatus::Pending => JobState::Pending,
        JobStatus::Runnable => JobState::Runnable,
        JobStatus::Starting => JobState::Starting,
        JobStatus::Running => JobState::Running,
        JobStatus::Succeeded => JobState::Succeeded,
        JobStatus::Failed => JobState::Failed,
        _ => return None,
    })
}

/// Milliseconds since 1970; AWS Batch writes 0 for what has not happened.
fn moment(milliseconds: Option<i64>) -> Option<Timestamp> {
    milliseconds.filter(|moment| *moment > 0).and_then(|moment| Timestamp::from_millisecond(moment).ok())
}

/// The pods that have ended, and the current one unless it is the last of those.
fn attempts(detail: &JobDetail) -> Vec<JobAttempt> {
    let mut attempts: Vec<JobAttempt> = detail.eks_attempts.iter().flatten().map(ended).collect();
    let properties = detail.eks_properties.as_ref().and_then(|properties| properties.pod_properties.as_ref());
    let current = properties
        .and_then(|properties| Some((properties, properties.pod_name.clone().filter(|name| !name.is_empty())?)));
    if let Some((properties, pod_name)) = current
        && !attempts.iter().any(|attempt| attempt.pod_name == pod_name)
    {
        attempts.push(running(detail, properties, pod_name));
    }
    attempts
}

fn running(detail: &JobDetail, properties: &EksPodPropertiesDetail, pod_name: String) -> JobAttempt {
    let container = |container: &EksContainerDetail| JobContainer {
        name: container.name.clone().unwrap_or_default(),
        exit_code: container.exit_code,
        reason: container.reason.clone().unwrap_or_default(),
    };
    let containers = properties.init_containers.iter().chain(&properties.containers).flatten();
    JobAttempt {
        pod_name,
        namespace: properties.metadata.as_ref().and_then(|metadata| metadata.namespace.clone()).unwrap_or_default(),
        node: properties.node_name.clone().unwrap_or_default(),
        containers: containers.map(container).collect(),
        started: moment(detail.started_at),
        stopped: None,
        reason: String::new(),
    }
}

fn ended(attempt: &EksAttemptDetail) -> JobAttempt {
    let container = |container: &EksAttemptContainerDetail| JobContainer {
        name: container.name.clone().unwrap_or_default(),
        exit_code: container.exit_code,
        reason: container.reason.clone().unwrap_or_default(),
    };
    let containers = attempt.init_containers.iter().chain(&attempt.containers).flatten();
    JobAttempt {
        pod_name: attempt.pod_name.clone().unwrap_or_default(),
        namespace: attempt.pod_namespace.clone().unwrap_or_default(),
        node: attempt.node_name.clone().unwrap_or_default(),
        containers: containers.map(container).collect(),
        started: moment(attempt.started_at),
        stopped: moment(attempt.stopped_at),
        reason: attempt.status_reason.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_batch::types::{ArrayPropertiesDetail, EksMetadata, EksPropertiesDetail};

    use super::*;

    fn detail() -> aws_sdk_batch::types::builders::JobDetailBuilder {
        JobDetail::builder().job_id("j").job_name("n").status(JobStatus::Running).tags(KEY_TAG, "k").started_at(0)
    }

    fn pod(name: &str) -> EksPropertiesDetail {
        let container = EksContainerDetail::builder().name("base").exit_code(3).reason("Error").build();
        let first = EksContainerDetail::builder().name("first").build();
        let metadata = EksMetadata::builder().namespace("jobs").build();
        let properties = EksPodPropertiesDetail::builder()
            .pod_name(name)
            .node_name("node")
            .containers(container)
            .init_containers(first)
            .metadata(metadata);
        EksPropertiesDetail::builder().pod_properties(properties.build()).build()
    }

    fn attempt(name: &str) -> EksAttemptDetail {
        let container = EksAttemptContainerDetail::builder().name("base").exit_code(137).reason("OOMKilled").build();
        EksAttemptDetail::builder().pod_name(name).pod_namespace("jobs").containers(container).stopped_at(2_000).build()
    }

    #[test]
    fn a_job_without_a_pod_has_no_attempts() {
        let job = job(&detail().status_reason("r").created_at(1_500).build()).unwrap();
        assert_eq!((job.id.as_str(), job.key.as_str(), job.state), ("j", "k", JobState::Running));
        assert_eq!((job.created, job.started), (Some("1970-01-01T00:00:01.5Z".parse().unwrap()), None));
        assert!(job.attempts.is_empty() && job.children.is_none() && !job.is_terminated);
    }

    #[test]
    fn the_current_pod_comes_after_those_that_have_ended() {
        let job = job(&detail().eks_attempts(attempt("a")).eks_properties(pod("b")).build()).unwrap();
        let names: Vec<_> = job.attempts.iter().map(|attempt| attempt.pod_name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(job.attempts[0].containers[0].exit_code, Some(137));
        let current = &job.attempts[1];
        assert_eq!((current.namespace.as_str(), current.node.as_str()), ("jobs", "node"));
        let containers: Vec<_> = current.containers.iter().map(|container| container.name.as_str()).collect();
        assert_eq!(containers, ["first", "base"]);
    }

    #[test]
    fn the_last_pod_is_not_counted_twice() {
        let job = job(&detail().eks_attempts(attempt("a")).eks_properties(pod("a")).build()).unwrap();
        assert_eq!(job.attempts.len(), 1);
        assert_eq!(job.attempts[0].containers[0].reason, "OOMKilled");
    }

    #[test]
    fn an_array_counts_its_children_and_a_child_does_not() {
        let array = |index: Option<i32>| {
            let array = ArrayPropertiesDetail::builder().size(3).set_index(index);
            array.status_summary("SUCCEEDED", 2).status_summary("RUNNING", 1).status_summary("FAILED", 0).build()
        };
        let parent = job(&detail().array_properties(array(None)).build()).unwrap();
        assert_eq!(parent.children, Some(vec![(JobState::Running, 1), (JobState::Succeeded, 2)]));
        assert_eq!(job(&detail().array_properties(array(Some(1))).build()).unwrap().children, None);
    }

    #[test]
    fn a_state_that_is_not_known_is_no_job() {
        assert_eq!(job(&detail().status(JobStatus::from("DREAMING")).build()), None);
    }
}
