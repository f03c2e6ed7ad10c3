//! Session policies: what a session may do at most, whatever its role allows.

use serde_json::{Value, json};

use super::{Definitions, EventsQueue, LogGroupName};

/// DescribeCluster on the one cluster. What a token needs, GetCallerIdentity, cannot even be denied.
pub(super) fn describe_cluster(role: &str, region: &str, cluster: &str) -> Option<String> {
    let (partition, account) = parts(role)?;
    let resource = format!("arn:{partition}:eks:{region}:{account}:cluster/{cluster}");
    Some(document(&[json!({ "Effect": "Allow", "Action": "eks:DescribeCluster", "Resource": resource })]))
}

/// Objects below one folder of a bucket. The key of a bucket that encrypts with KMS may be used by way of S3, if the role and
/// the key's policy allow it.
pub(super) fn folder(role: &str, bucket: &str, root: &str) -> Option<String> {
    let (partition, _) = parts(role)?;
    let bucket = format!("arn:{partition}:s3:::{bucket}");
    Some(document(&[
        json!({
            "Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket,
            "Condition": { "StringLike": { "s3:prefix": format!("{root}/*") } },
        }),
        json!({
            "Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"],
            "Resource": format!("{bucket}/{root}/*"),
        }),
        json!({
            "Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": "*",
            "Condition": { "StringLike": { "kms:ViaService": "s3.*" } },
        }),
    ]))
}

/// Jobs of AWS Batch in one region of the role's account, the events about them in one queue, and their lines in one log group. Which queues of jobs and which
/// definitions is the role's own policy's business.
pub(super) fn batch(
    role: &str,
    region: &str,
    definitions: Definitions,
    events: Option<&EventsQueue>,
    logs: Option<&LogGroupName>,
) -> Option<String> {
    let (partition, account) = parts(role)?;
    let mut change = vec!["batch:SubmitJob", "batch:TerminateJob", "batch:TagResource"];
    if definitions == Definitions::Registered {
        change.push("batch:RegisterJobDefinition");
    }
    // None of these can be allowed for one resource only.
    let look = [
        "batch:DescribeJobs",
        "batch:ListJobs",
        "batch:DescribeJobDefinitions",
        "batch:DescribeJobQueues",
        "batch:DescribeComputeEnvironments",
    ];
    let mut statements = vec![
        json!({ "Effect": "Allow", "Action": change, "Resource": format!("arn:{partition}:batch:{region}:{account}:*") }),
        json!({ "Effect": "Allow", "Action": look, "Resource": "*" }),
    ];
    statements.extend(events.map(|EventsQueue { account, name, .. }| {
        json!({
            "Effect": "Allow", "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage"],
            "Resource": format!("arn:{partition}:sqs:{region}:{account}:{name}"),
        })
    }));
    statements.extend(logs.map(|LogGroupName { name, account: owner, .. }| {
        let owner = owner.as_deref().unwrap_or(account);
        // What is behind the name is a stream's; for the group as a whole it is empty.
        json!({
            "Effect": "Allow", "Action": ["logs:DescribeLogStreams", "logs:GetLogEvents"],
            "Resource": format!("arn:{partition}:logs:{region}:{owner}:log-group:{name}:*"),
        })
    }));
    Some(document(&statements))
}

/// Partition and account of a role's ARN.
fn parts(role: &str) -> Option<(&str, &str)> {
    let mut parts = role.splitn(6, ':');
    Some((parts.nth(1)?, parts.nth(2)?))
}

fn document(statements: &[Value]) -> String {
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws-us-gov:iam::111122223333:role/Logs";

    /// AssumeRole takes so many characters.
    const LIMIT: usize = 2048;

    #[test]
    fn a_session_for_a_cluster_can_describe_it() {
        let policy = describe_cluster(ROLE, "us-gov-west-1", "c").unwrap();
        assert!(policy.contains("arn:aws-us-gov:eks:us-gov-west-1:111122223333:cluster/c"), "{policy}");
        assert!(!policy.contains("s3:"));
        assert_eq!(describe_cluster("no ARN", "r", "c"), None);
    }

    #[test]
    fn a_session_for_batch_runs_jobs_and_registers_only_where_it_should() {
        let given = batch(ROLE, "us-gov-west-1", Definitions::Given, None, None).unwrap();
        assert!(given.contains("arn:aws-us-gov:batch:us-gov-west-1:111122223333:*"), "{given}");
        assert!(
            given.contains("batch:SubmitJob") && !given.contains("RegisterJobDefinition") && !given.contains("eks:")
        );
        assert!(!given.contains("sqs:") && !given.contains("logs:"));
        let queue = EventsQueue { url: String::new(), account: "444455556666".to_owned(), name: "q".repeat(80) };
        let group = LogGroupName { identifier: String::new(), name: "g".repeat(512), account: None };
        let registered = batch(ROLE, "us-gov-west-1", Definitions::Registered, Some(&queue), Some(&group)).unwrap();
        assert!(registered.contains("batch:RegisterJobDefinition") && registered.len() < LIMIT);
        let policy: Value = serde_json::from_str(&registered).unwrap();
        let events = &policy["Statement"][2];
        assert_eq!(events["Resource"], format!("arn:aws-us-gov:sqs:us-gov-west-1:444455556666:{}", queue.name));
        assert_eq!(events["Action"], json!(["sqs:ReceiveMessage", "sqs:DeleteMessage"]));
        let logs = &policy["Statement"][3];
        assert_eq!(
            logs["Resource"],
            format!("arn:aws-us-gov:logs:us-gov-west-1:111122223333:log-group:{}:*", group.name)
        );
        assert_eq!(logs["Action"], json!(["logs:DescribeLogStreams", "logs:GetLogEvents"]));
    }

    #[test]
    fn a_session_for_a_bucket_reaches_one_folder_of_it_and_nothing_else() {
        let policy: Value = serde_json::from_str(&folder(ROLE, "example-logs", "podbroker/main").unwrap()).unwrap();
        let resources: Vec<_> = policy["Statement"].as_array().unwrap().iter().map(|one| &one["Resource"]).collect();
        assert_eq!(resources[0], "arn:aws-us-gov:s3:::example-logs");
        assert_eq!(resources[1], "arn:aws-us-gov:s3:::example-logs/podbroker/main/*");
        assert_eq!(policy["Statement"][0]["Condition"]["StringLike"]["s3:prefix"], "podbroker/main/*");
        let longest = folder(ROLE, &"b".repeat(63), &"p".repeat(300)).unwrap();
        assert!(longest.len() < LIMIT, "{}", longest.len());
    }
}
