//! The labels, annotations and other names that the broker writes into the cluster. They are read by other replicas, by
//! later versions and by people: a change here is a change of the contract.

/// Selects what belongs to an installation and a target; the hub's watch asks for both.
pub(super) const INSTANCE_LABEL: &str = "podbroker.io/instance";
/// See `INSTANCE_LABEL`.
pub(super) const TARGET_LABEL: &str = "podbroker.io/target";
/// Whose execution it is.
pub(super) const TENANT_LABEL: &str = "podbroker.io/tenant";
/// The hash of the execution's address.
pub(super) const EXECUTION_LABEL: &str = "podbroker.io/execution";
/// The hash of the group's address, on members of one.
pub(super) const GROUP_LABEL: &str = "podbroker.io/group";
/// On a pod that AWS Batch made: the job. Batch writes it.
pub(super) const JOB_LABEL: &str = "batch.amazonaws.com/job-id";
/// On a pod that a Job of the cluster made: the Job's name. Its controller writes it.
pub(super) const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// Which execution of its group it is, from 1.
pub(super) const GENERATION_LABEL: &str = "podbroker.io/generation";
/// The attempt's number.
pub(super) const ATTEMPT_LABEL: &str = "podbroker.io/attempt";

/// The execution id in full; a label holds 63 characters only.
pub(super) const ID: &str = "podbroker.io/execution-id";
/// The subject of the caller that submitted it.
pub(super) const SUBMITTED_BY: &str = "podbroker.io/submitted-by";
/// RFC 3339; the object is not deleted before.
pub(super) const SUBMIT_BEFORE: &str = "podbroker.io/submit-before";
/// The digest of the request.
pub(super) const DIGEST: &str = "podbroker.io/spec-digest";
/// The resolved policies as JSON.
pub(super) const POLICIES: &str = "podbroker.io/policies";
/// The caller's labels as JSON.
pub(super) const LABELS: &str = "podbroker.io/labels";
/// The name that the caller's manifest asked for.
pub(super) const WISHED_NAME: &str = "podbroker.io/requested-name";
/// The caller's manifest: gzip, base64. The live spec was changed by admission and cannot make another attempt.
pub(super) const MANIFEST: &str = "podbroker.io/manifest";
/// Who asked for the end, as JSON.
pub(super) const CANCEL: &str = "podbroker.io/cancel";
/// Who asked for the end between two attempts, as JSON: no other one follows.
pub(super) const STOP: &str = "podbroker.io/stop";
/// Why no other attempt follows although one was due, as JSON.
pub(super) const REFUSED: &str = "podbroker.io/refused-attempt";
/// Why the attempt that is due has to wait, as JSON. Written once, when that begins.
pub(super) const WAITS: &str = "podbroker.io/waiting-attempt";
/// The group's id in full.
pub(super) const GROUP: &str = "podbroker.io/group-id";
/// Who attached to it: `<hash of the execution's address>/<end of the submit window, seconds since 1970>`, oldest first,
/// between spaces. The last one holds the claim.
pub(super) const CLAIMS: &str = "podbroker.io/claims";
/// RFC 3339: a submit was about to start the next execution of the group.
pub(super) const SUPERSEDED: &str = "podbroker.io/superseded-at";
/// RFC 3339: the outcome was decided before what still ran was ended.
pub(super) const DECIDED: &str = "podbroker.io/decided-at";
/// RFC 3339: the claim holder has all it wants.
pub(super) const RELEASED: &str = "podbroker.io/released-at";

/// On a record, from its creation on: who submits its job, since when, and which try that is, as JSON.
pub(super) const SUBMITTING: &str = "podbroker.io/submitting";
/// On a record: the job that was made for it, as JSON.
pub(super) const JOB: &str = "podbroker.io/job";
/// On a record: a submit was not answered, so there may be another job than the one that is known, as JSON.
pub(super) const DOUBT: &str = "podbroker.io/submit-in-doubt";
/// On a record: how the attempt ended, as JSON. Written once.
pub(super) const OUTCOME: &str = "podbroker.io/outcome-is";

/// On a Job: the record that it is for, by name and uid.
pub(super) const KEY: &str = "podbroker.io/record";
/// On a Job: why its end was asked for.
pub(super) const ENDED: &str = "podbroker.io/ended-because";

/// On a replica's Lease: the executions that it follows, by the first characters of their hashes, or `*`.
pub(super) const FOLLOWED: &str = "podbroker.io/followed";

/// The resource of the cluster's Jobs.
pub(super) const JOBS: &str = "jobs";

/// The API group of a resource; empty for the core's.
pub(super) fn group(resource: &str) -> &'static str {
    match resource {
        "leases" => "coordination.k8s.io",
        JOBS => "batch",
        _ => "",
    }
}

/// Keeps the object, and so the exit codes, until the outcome was taken.
pub(super) const FINALIZER: &str = "podbroker.io/outcome";

/// Everything under this belongs to the broker.
pub(super) const PREFIX: &str = "podbroker.io/";

/// The container and the volume that carry the result.
pub(super) const RESULT_NAME: &str = "podbroker-result";
