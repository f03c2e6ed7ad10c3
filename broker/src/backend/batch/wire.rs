//! From planned JSON to the SDK's requests, field by field; a test compares what goes out with what was planned.

use std::collections::HashMap;

use aws_sdk_batch::operation::register_job_definition::builders::RegisterJobDefinitionFluentBuilder;
use aws_sdk_batch::operation::submit_job::builders::SubmitJobFluentBuilder;
use aws_sdk_batch::types::{
    ArrayProperties, EksContainer, EksContainerEnvironmentVariable, EksContainerOverride,
    EksContainerResourceRequirements, EksContainerSecurityContext, EksContainerVolumeMount, EksEmptyDir, EksHostPath,
    EksMetadata, EksPersistentVolumeClaim, EksPodProperties, EksPodPropertiesOverride, EksProperties,
    EksPropertiesOverride, EksSecret, EksVolume, EvaluateOnExit, ImagePullSecret, JobDefinitionType, JobDependency,
    JobTimeout, RetryAction, RetryStrategy,
};
use serde_json::{Map, Value};

/// An object of the plan.
type Fields = Map<String, Value>;

fn text(fields: &Fields, field: &str) -> Option<String> {
    fields.get(field)?.as_str().map(str::to_owned)
}

fn number(fields: &Fields, field: &str) -> Option<i32> {
    i32::try_from(fields.get(field)?.as_i64()?).ok()
}

fn flag(fields: &Fields, field: &str) -> Option<bool> {
    fields.get(field)?.as_bool()
}

fn texts(fields: &Fields, field: &str) -> Option<Vec<String>> {
    Some(fields.get(field)?.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn text_map(fields: &Fields, field: &str) -> Option<HashMap<String, String>> {
    let entries = fields.get(field)?.as_object()?.iter();
    Some(entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect())
}

fn object<T>(fields: &Fields, field: &str, make: impl Fn(&Fields) -> T) -> Option<T> {
    fields.get(field)?.as_object().map(make)
}

fn objects<T>(fields: &Fields, field: &str, make: impl Fn(&Fields) -> T) -> Option<Vec<T>> {
    Some(fields.get(field)?.as_array()?.iter().filter_map(Value::as_object).map(make).collect())
}

/// `SubmitJob` as it was planned.
pub(super) fn submit(request: SubmitJobFluentBuilder, plan: &Fields) -> SubmitJobFluentBuilder {
    request
        .set_job_name(text(plan, "jobName"))
        .set_job_queue(text(plan, "jobQueue"))
        .set_job_definition(text(plan, "jobDefinition"))
        .set_share_identifier(text(plan, "shareIdentifier"))
        .set_scheduling_priority_override(number(plan, "schedulingPriorityOverride"))
        .set_array_properties(object(plan, "arrayProperties", |array| {
            ArrayProperties::builder().set_size(number(array, "size")).build()
        }))
        .set_depends_on(objects(plan, "dependsOn", |job| {
            JobDependency::builder().set_job_id(text(job, "jobId")).build()
        }))
        .set_parameters(text_map(plan, "parameters"))
        .set_retry_strategy(object(plan, "retryStrategy", |retry| {
            RetryStrategy::builder()
                .set_attempts(number(retry, "attempts"))
                .set_evaluate_on_exit(objects(retry, "evaluateOnExit", condition))
                .build()
        }))
        .set_timeout(object(plan, "timeout", |timeout| {
            JobTimeout::builder().set_attempt_duration_seconds(number(timeout, "attemptDurationSeconds")).build()
        }))
        .set_tags(text_map(plan, "tags"))
        .set_eks_properties_override(object(plan, "eksPropertiesOverride", |overrides| {
            EksPropertiesOverride::builder()
                .set_pod_properties(object(overrides, "podProperties", pod_override))
                .build()
        }))
}

fn condition(condition: &Fields) -> EvaluateOnExit {
    EvaluateOnExit::builder()
        .set_on_status_reason(text(condition, "onStatusReason"))
        .set_on_reason(text(condition, "onReason"))
        .set_on_exit_code(text(condition, "onExitCode"))
        .set_action(text(condition, "action").map(|action| RetryAction::from(action.to_ascii_uppercase().as_str())))
        .build()
}

fn pod_override(pod: &Fields) -> EksPodPropertiesOverride {
    EksPodPropertiesOverride::builder()
        .set_containers(objects(pod, "containers", container_override))
        .set_init_containers(objects(pod, "initContainers", container_override))
        .set_metadata(object(pod, "metadata", metadata))
        .build()
}

fn metadata(metadata: &Fields) -> EksMetadata {
    EksMetadata::builder()
        .set_labels(text_map(metadata, "labels"))
        .set_annotations(text_map(metadata, "annotations"))
        .set_namespace(text(metadata, "namespace"))
        .build()
}

fn container_override(container: &Fields) -> EksContainerOverride {
    EksContainerOverride::builder()
        .set_name(text(container, "name"))
        .set_image(text(container, "image"))
        .set_command(texts(container, "command"))
        .set_args(texts(container, "args"))
        .set_env(objects(container, "env", variable))
        .set_resources(object(container, "resources", resources))
        .build()
}

fn variable(variable: &Fields) -> EksContainerEnvironmentVariable {
    EksContainerEnvironmentVariable::builder()
        .set_name(text(variable, "name"))
        .set_value(text(variable, "value"))
        .build()
}

fn resources(resources: &Fields) -> EksContainerResourceRequirements {
    EksContainerResourceRequirements::builder()
        .set_limits(text_map(resources, "limits"))
        .set_requests(text_map(resources, "requests"))
        .build()
}

/// `RegisterJobDefinition` as it was planned.
pub(super) fn register(
    request: RegisterJobDefinitionFluentBuilder,
    plan: &Fields,
) -> RegisterJobDefinitionFluentBuilder {
    request
        .set_job_definition_name(text(plan, "jobDefinitionName"))
        .set_type(text(plan, "type").map(|kind| JobDefinitionType::from(kind.as_str())))
        .set_tags(text_map(plan, "tags"))
        .set_eks_properties(object(plan, "eksProperties", |properties| {
            EksProperties::builder().set_pod_properties(object(properties, "podProperties", pod)).build()
        }))
}

fn pod(pod: &Fields) -> EksPodProperties {
    EksPodProperties::builder()
        .set_containers(objects(pod, "containers", container))
        .set_init_containers(objects(pod, "initContainers", container))
        .set_volumes(objects(pod, "volumes", volume))
        .set_service_account_name(text(pod, "serviceAccountName"))
        .set_host_network(flag(pod, "hostNetwork"))
        .set_dns_policy(text(pod, "dnsPolicy"))
        .set_image_pull_secrets(objects(pod, "imagePullSecrets", |secret| {
            ImagePullSecret::builder().set_name(text(secret, "name")).build()
        }))
        .set_share_process_namespace(flag(pod, "shareProcessNamespace"))
        .build()
}

fn container(container: &Fields) -> EksContainer {
    EksContainer::builder()
        .set_name(text(container, "name"))
        .set_image(text(container, "image"))
        .set_image_pull_policy(text(container, "imagePullPolicy"))
        .set_command(texts(container, "command"))
        .set_args(texts(container, "args"))
        .set_env(objects(container, "env", variable))
        .set_resources(object(container, "resources", resources))
        .set_volume_mounts(objects(container, "volumeMounts", |mount| {
            EksContainerVolumeMount::builder()
                .set_name(text(mount, "name"))
                .set_mount_path(text(mount, "mountPath"))
                .set_sub_path(text(mount, "subPath"))
                .set_read_only(flag(mount, "readOnly"))
                .build()
        }))
        .set_security_context(object(container, "securityContext", |context| {
            let id = |field: &str| context.get(field).and_then(Value::as_i64);
            EksContainerSecurityContext::builder()
                .set_run_as_user(id("runAsUser"))
                .set_run_as_group(id("runAsGroup"))
                .set_privileged(flag(context, "privileged"))
                .set_allow_privilege_escalation(flag(context, "allowPrivilegeEscalation"))
                .set_read_only_root_filesystem(flag(context, "readOnlyRootFilesystem"))
                .set_run_as_non_root(flag(context, "runAsNonRoot"))
                .build()
        }))
        .build()
}

fn volume(volume: &Fields) -> EksVolume {
    EksVolume::builder()
        .set_name(text(volume, "name"))
        .set_host_path(object(volume, "hostPath", |path| EksHostPath::builder().set_path(text(path, "path")).build()))
        .set_empty_dir(object(volume, "emptyDir", |folder| {
            EksEmptyDir::builder().set_medium(text(folder, "medium")).set_size_limit(text(folder, "sizeLimit")).build()
        }))
        .set_secret(object(volume, "secret", |secret| {
            EksSecret::builder()
                .set_secret_name(text(secret, "secretName"))
                .set_optional(flag(secret, "optional"))
                .build()
        }))
        .set_persistent_volume_claim(object(volume, "persistentVolumeClaim", |claim| {
            EksPersistentVolumeClaim::builder()
                .set_claim_name(text(claim, "claimName"))
                .set_read_only(flag(claim, "readOnly"))
                .build()
        }))
        .build()
}
