//! What is wrong with a queue, a compute environment or a job definition: pure functions of their descriptions.

use aws_sdk_batch::types::{
    CeState, CeStatus, ComputeEnvironmentDetail, EksAccessEntryDesiredState, EksAccessEntryStatus, JobDefinition,
    JobQueueDetail, JqState, JqStatus,
};

use super::definition::is_active;

/// Something that keeps jobs from running.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) what: String,
    pub(super) fix: String,
}

impl Problem {
    pub(super) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

fn because(reason: Option<&str>) -> String {
    reason.filter(|reason| !reason.is_empty()).map(|reason| format!(" ({reason})")).unwrap_or_default()
}

pub(super) fn queue(queue: &JobQueueDetail) -> Option<Problem> {
    let name = queue.job_queue_name.as_deref().unwrap_or_default();
    let reason = because(queue.status_reason.as_deref());
    if queue.state != Some(JqState::Enabled) {
        return Some(Problem::new(format!("the queue {name} is disabled and takes no jobs"), "enable the queue"));
    }
    match &queue.status {
        Some(JqStatus::Valid | JqStatus::Updating) => None,
        status => {
            let status = status.as_ref().map_or("unknown", JqStatus::as_str);
            let fix = "wait until its status is VALID, or mend what the reason names";
            Some(Problem::new(format!("the queue {name} is {status}{reason}"), fix))
        }
    }
}

/// The cluster may be empty, when the target does not say which it is.
pub(super) fn environment(environment: &ComputeEnvironmentDetail, cluster: &str, namespace: &str) -> Option<Problem> {
    let name = environment.compute_environment_name.as_deref().unwrap_or_default();
    let reason = because(environment.status_reason.as_deref());
    let Some(eks) = &environment.eks_configuration else {
        let what = format!("the compute environment {name} has no EKS cluster");
        return Some(Problem::new(what, "use a queue whose compute environments are on the target's cluster"));
    };
    let arn = eks.eks_cluster_arn.as_deref().unwrap_or_default();
    if !cluster.is_empty() && arn.rsplit('/').next() != Some(cluster) {
        let what = format!("the compute environment {name} is on {arn}, and the target's cluster is {cluster}");
        return Some(Problem::new(what, "use a queue of the target's cluster, or correct the target's cluster"));
    }
    let theirs = eks.kubernetes_namespace.as_deref().unwrap_or_default();
    if theirs != namespace {
        let what =
            format!("the compute environment {name} runs jobs in the namespace {theirs}, the target is {namespace}");
        return Some(Problem::new(what, format!("set the target's namespace to {theirs}")));
    }
    if environment.state != Some(CeState::Enabled) {
        return Some(Problem::new(format!("the compute environment {name} is disabled"), "enable it"));
    }
    match &environment.status {
        Some(CeStatus::Valid | CeStatus::Updating) => None,
        status => {
            let status = status.as_ref().map_or("unknown", CeStatus::as_str);
            let fix =
                "mend what the reason names: often the role mapping or the RBAC that AWS Batch needs in the cluster";
            Some(Problem::new(format!("the compute environment {name} is {status}{reason}"), fix))
        }
    }
}

/// Whom AWS Batch is to the cluster when it makes pods, as far as AWS tells; or why it is nobody there.
pub(super) fn service_role(environment: &ComputeEnvironmentDetail) -> Result<String, Problem> {
    let role = environment.service_role.as_deref().unwrap_or("its service-linked role");
    let entry = environment.eks_configuration.as_ref().and_then(|eks| eks.access_entry.as_ref());
    let (wanted, status) = entry.map(|entry| (&entry.desired_state, &entry.status)).unzip();
    match (wanted.and_then(Option::as_ref), status.and_then(Option::as_ref)) {
        (_, Some(EksAccessEntryStatus::Active)) => Ok(format!("AWS Batch makes pods as {role}, by its access entry")),
        (Some(EksAccessEntryDesiredState::Enabled), _) => {
            let what =
                format!("{role} has no access entry in the cluster, although the compute environment asks for one");
            let fix = "AWS Batch makes one when all compute environments of the cluster ask for it: set their \
                       accessEntry.desiredState to ENABLED, by somebody who may call eks:CreateAccessEntry";
            Err(Problem::new(what, fix))
        }
        _ => Ok(format!("AWS Batch makes pods as {role}, if aws-auth maps it, which cannot be seen from here")),
    }
}

pub(super) fn definition(definition: &JobDefinition) -> Option<Problem> {
    let name = full_name(definition);
    if !is_active(definition) {
        return Some(Problem::new(format!("the job definition {name} is not active"), "register it anew"));
    }
    if containers(definition).is_none() {
        let what = format!("the job definition {name} has no eksProperties");
        return Some(Problem::new(what, "use a definition of a job on EKS"));
    }
    None
}

/// A definition may send its pods elsewhere than the compute environment.
pub(super) fn definition_namespace(definition: &JobDefinition, namespace: &str) -> Option<Problem> {
    let pod = definition.eks_properties.as_ref()?.pod_properties.as_ref()?;
    let theirs = pod.metadata.as_ref()?.namespace.as_deref().filter(|theirs| *theirs != namespace)?;
    let name = full_name(definition);
    let what =
        format!("the job definition {name} puts its pods into the namespace {theirs}, the target is {namespace}");
    Some(Problem::new(what, format!("register it without metadata.namespace, or with {namespace}")))
}

/// Pods have the node's network unless a definition says otherwise, and a submit cannot say it.
pub(super) fn host_network(definition: &JobDefinition) -> Option<Problem> {
    let pod = definition.eks_properties.as_ref()?.pod_properties.as_ref()?;
    if pod.host_network == Some(false) {
        return None;
    }
    let what = "its pods are on the network of their node, which pod security refuses where it is enforced";
    Some(Problem::new(what, "register it with hostNetwork: false, unless its pods need the node's network"))
}

pub(super) fn full_name(definition: &JobDefinition) -> String {
    let name = definition.job_definition_name.as_deref().unwrap_or_default();
    format!("{name}:{}", definition.revision.unwrap_or_default())
}

/// The names of a definition's containers, with those of its init containers.
pub(super) fn containers(definition: &JobDefinition) -> Option<[Vec<&str>; 2]> {
    let pod = definition.eks_properties.as_ref()?.pod_properties.as_ref()?;
    let lists = [&pod.containers, &pod.init_containers];
    // The name that AWS Batch gives to a container without one.
    Some(lists.map(|list| list.iter().flatten().map(|one| one.name.as_deref().unwrap_or("Default")).collect()))
}

#[cfg(test)]
mod tests {
    use aws_sdk_batch::types::{EksConfiguration, EksContainer, EksPodProperties, EksProperties};

    use super::*;

    #[test]
    fn a_queue_must_be_enabled_and_valid() {
        let of = |state, status| {
            queue(&JobQueueDetail::builder().job_queue_name("q").state(state).status(status).status_reason("r").build())
        };
        assert_eq!(of(JqState::Enabled, JqStatus::Valid), None);
        assert!(of(JqState::Disabled, JqStatus::Valid).unwrap().what.contains("disabled"));
        assert_eq!(of(JqState::Enabled, JqStatus::Invalid).unwrap().what, "the queue q is INVALID (r)");
    }

    fn of_environment(change: impl FnOnce(&mut ComputeEnvironmentDetail)) -> Option<String> {
        let arn = "arn:aws:eks:us-east-1:111122223333:cluster/demo";
        let eks = EksConfiguration::builder().eks_cluster_arn(arn).kubernetes_namespace("jobs").build();
        let mut detail = ComputeEnvironmentDetail::builder()
            .compute_environment_name("c")
            .state(CeState::Enabled)
            .status(CeStatus::Valid)
            .eks_configuration(eks)
            .build();
        change(&mut detail);
        environment(&detail, "demo", "jobs").map(|problem| problem.what)
    }

    #[test]
    fn an_environment_must_be_on_the_target_s_cluster_and_in_its_namespace() {
        assert_eq!(of_environment(|_| ()), None);
        let problem = of_environment(|detail| detail.eks_configuration = None);
        assert_eq!(problem.unwrap(), "the compute environment c has no EKS cluster");
        let problem = of_environment(|detail| {
            let eks = detail.eks_configuration.take().unwrap();
            let arn = eks.eks_cluster_arn.unwrap() + "-2";
            detail.eks_configuration =
                Some(EksConfiguration::builder().eks_cluster_arn(arn).kubernetes_namespace("jobs").build());
        });
        assert!(problem.unwrap().contains("the target's cluster is demo"));
        let problem = of_environment(|detail| {
            let arn = detail.eks_configuration.take().unwrap().eks_cluster_arn.unwrap();
            detail.eks_configuration =
                Some(EksConfiguration::builder().eks_cluster_arn(arn).kubernetes_namespace("x").build());
        });
        assert!(problem.unwrap().contains("the namespace x"));
        assert!(of_environment(|detail| detail.state = Some(CeState::Disabled)).unwrap().contains("disabled"));
        assert!(of_environment(|detail| detail.status = Some(CeStatus::Invalid)).unwrap().contains("INVALID"));
    }

    #[test]
    fn batch_must_be_somebody_to_the_cluster_if_it_is_to_have_an_access_entry() {
        use EksAccessEntryDesiredState::{Disabled, Enabled, InheritFromCluster};
        use EksAccessEntryStatus::{Active, Inactive};
        let of = |wanted, status| {
            let entry = aws_sdk_batch::types::EksAccessEntry::builder().desired_state(wanted).status(status).build();
            let eks = EksConfiguration::builder().eks_cluster_arn("a").kubernetes_namespace("n").access_entry(entry);
            let detail = ComputeEnvironmentDetail::builder().service_role("the-role").eks_configuration(eks.build());
            service_role(&detail.build())
        };
        for (wanted, status) in [(Enabled, Active), (InheritFromCluster, Active), (Disabled, Inactive)] {
            assert!(of(wanted, status).unwrap().contains("the-role"));
        }
        let problem = of(Enabled, Inactive).unwrap_err();
        assert!(problem.what.starts_with("the-role has no access entry"), "{problem:?}");
        assert!(problem.fix.contains("desiredState to ENABLED"), "{problem:?}");
        let old = ComputeEnvironmentDetail::builder().build();
        assert!(service_role(&old).unwrap().contains("aws-auth"));
    }

    #[test]
    fn a_definition_keeps_to_the_target_s_namespace_and_off_the_node_s_network() {
        let of = |namespace: Option<&str>, host_network| {
            let metadata = namespace.map(|name| aws_sdk_batch::types::EksMetadata::builder().namespace(name).build());
            let pod = EksPodProperties::builder().set_metadata(metadata).set_host_network(host_network).build();
            let eks = EksProperties::builder().pod_properties(pod).build();
            JobDefinition::builder().job_definition_name("d").revision(2).eks_properties(eks).build()
        };
        assert_eq!(definition_namespace(&of(None, None), "jobs"), None);
        assert_eq!(definition_namespace(&of(Some("jobs"), None), "jobs"), None);
        let problem = definition_namespace(&of(Some("other"), None), "jobs").unwrap();
        assert!(problem.what.contains("the namespace other"), "{problem:?}");
        assert_eq!(host_network(&of(None, Some(false))), None);
        assert!(host_network(&of(None, None)).is_some() && host_network(&of(None, Some(true))).is_some());
    }

    #[test]
    fn a_definition_must_be_active_and_for_eks() {
        let eks = EksProperties::builder();
        let pod = EksPodProperties::builder().containers(EksContainer::builder().image("i").build());
        let eks = eks.pod_properties(pod.build()).build();
        let builder = || JobDefinition::builder().job_definition_name("d").revision(2);
        let good = builder().status("ACTIVE").eks_properties(eks.clone()).build();
        assert_eq!(definition(&good), None);
        assert_eq!(containers(&good), Some([vec!["Default"], vec![]]));
        let inactive = builder().status("INACTIVE").eks_properties(eks).build();
        assert_eq!(definition(&inactive).unwrap().what, "the job definition d:2 is not active");
        let other = builder().status("ACTIVE").build();
        assert_eq!(definition(&other).unwrap().what, "the job definition d:2 has no eksProperties");
    }
}
