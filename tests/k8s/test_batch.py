"""The template of AWS Batch is one that Batch takes, and says the same as the policies, the manifests and the page."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest
import tomllib
from botocore.session import Session
from botocore.validate import validate_parameters
from moto.events.models import EventPattern

from k8s.policy import Call, allows
from k8s.shipped import BATCH_PAGE, load
from k8s.template import NODES, TEMPLATE, api_input, deployed, operation
from k8s.test_files import ACCOUNT, BATCH_NAMESPACE, CLUSTER, REGION, granted, words

#: Every way to deploy it.
WAYS: Final = [(capacity, events) for capacity in ("EC2", "SPOT") for events in ("no", "yes")]


def taken(service: str, call: str, properties: dict[str, Any], **more: str) -> dict[str, Any]:
    """Properties as the call has them, after botocore's model of it has passed them."""
    shape = operation(service, call).input_shape
    given: dict[str, Any] = {**api_input(shape, properties), **more}
    validate_parameters(given, shape)
    return given


@pytest.mark.parametrize(("capacity", "events"), WAYS)
def test_batch_takes_the_compute_environment(capacity: str, events: str) -> None:
    properties = dict(deployed(capacity, events)["ComputeEnvironment"])
    # What CloudFormation itself does with it, and what it says at a change only.
    assert properties.pop("ReplaceComputeEnvironment") is False
    change = {"UpdatePolicy": properties.pop("UpdatePolicy")}
    later = taken("batch", "UpdateComputeEnvironment", change, computeEnvironment="made-by-cloudformation")
    assert later["updatePolicy"]["terminateJobsOnUpdate"] is False
    given = taken("batch", "CreateComputeEnvironment", properties, computeEnvironmentName="made-by-cloudformation")
    assert given["type"] == "MANAGED"
    assert given["eksConfiguration"] == {
        "eksClusterArn": f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}",
        "kubernetesNamespace": BATCH_NAMESPACE,
        "accessEntry": {"desiredState": "ENABLED"},
    }
    resources = given["computeResources"]
    assert resources["type"] == capacity
    # The other strategies either cannot be changed later or are not for this kind of capacity.
    expected = {"EC2": "BEST_FIT_PROGRESSIVE", "SPOT": "SPOT_PRICE_CAPACITY_OPTIMIZED"}
    assert resources["allocationStrategy"] == expected[capacity]
    assert resources["minvCpus"] == 0, "an idle queue costs nothing"
    assert resources["launchTemplate"]["launchTemplateId"] == "<NodeTemplate>"


def test_pods_do_not_reach_the_role_of_their_node() -> None:
    data = deployed()["NodeTemplate"]["LaunchTemplateData"]
    shape = Session().get_service_model("ec2").shape_for("RequestLaunchTemplateData")
    validate_parameters(api_input(shape, data), shape)
    assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}


def test_batch_takes_the_queue() -> None:
    given = taken("batch", "CreateJobQueue", deployed()["JobQueue"])
    assert given["jobQueueName"] == deployed().outputs["Queue"]
    assert given["computeEnvironmentOrder"] == [{"order": 1, "computeEnvironment": "<ComputeEnvironment>"}]


def test_batch_takes_the_job_definition() -> None:
    given = taken("batch", "RegisterJobDefinition", deployed()["JobDefinition"])
    assert given["jobDefinitionName"] == deployed().outputs["JobDefinition"]
    assert given["retryStrategy"] == {"attempts": 1}
    pod = given["eksProperties"]["podProperties"]
    assert pod["hostNetwork"] is False, "the default is the network of the node"
    (container,) = pod["containers"]
    assert container["name"] == "main"
    assert not {"command", "args", "env"} & set(container), "a submit that says nothing of it would get what is here"
    resources = container["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"], "Batch wants it so"
    assert (float(resources["limits"]["cpu"]) / 0.25).is_integer()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ComputeEnvironment", {"ComputeResources": {"Type": "EC2", "MaxVCpus": 1}}),
        ("ComputeEnvironment", {"EksConfiguration": {"EksClusterArn": "x", "Namespace": "y"}}),
        ("JobDefinition", {"Type": "container", "EksProperties": {"PodProperties": {"NodeSelector": {}}}}),
        ("JobQueue", {"State": "On"}),
    ],
)
def test_a_slip_in_the_template_would_be_found(name: str, change: dict[str, Any]) -> None:
    calls = {"ComputeEnvironment": "CreateComputeEnvironment", "JobDefinition": "RegisterJobDefinition"}
    shape = operation("batch", calls.get(name, "CreateJobQueue")).input_shape
    with pytest.raises(AssertionError):
        api_input(shape, {**deployed()[name], **change})


def test_without_events_nothing_of_them_is_made_or_told() -> None:
    without = deployed(events="no")
    assert sorted(set(deployed().resources) - set(without.resources)) == [
        *("EventsQueue", "EventsQueuePolicy", "EventsRule"),
    ]
    assert set(deployed().outputs) - set(without.outputs) == {"EventsQueueUrl"}


def test_sqs_and_eventbridge_take_the_queue_and_the_rule() -> None:
    queue = dict(deployed()["EventsQueue"])
    attributes = {name: json.dumps(value) for name, value in queue.items() if name != "QueueName"}
    assert set(attributes) <= set(Session().get_service_model("sqs").shape_for("QueueAttributeName").enum)
    assert queue["QueueName"] == f"{BATCH_NAMESPACE}-events"
    rule = dict(deployed()["EventsRule"])
    targets = rule.pop("Targets")
    taken("events", "PutRule", rule, Name="made-by-cloudformation")
    taken("events", "PutTargets", {"Rule": "made-by-cloudformation", "Targets": targets})
    assert [one["Arn"] for one in targets] == ["<EventsQueue.Arn>"]


CHANGE: Final = {"source": "aws.batch", "detail-type": "Batch Job State Change"}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({**CHANGE, "detail": {"jobQueue": "<JobQueue>", "status": "FAILED", "jobId": "x"}}, True),
        ({**CHANGE, "detail": {"jobQueue": "<JobQueue>", "status": "SUCCEEDED"}}, True),
        ({**CHANGE, "detail": {"jobQueue": "<JobQueue>", "status": "FAILED"}}, True),
        ({**CHANGE, "detail": {"jobQueue": "<JobQueue>", "status": "SUBMITTED"}}, False),
        ({**CHANGE, "detail": {"jobQueue": "<JobQueue>", "status": "RUNNING"}}, False),
        ({**CHANGE, "detail": {"jobQueue": "another", "status": "FAILED"}}, False),
        ({**CHANGE, "source": "aws.ecs", "detail": {"jobQueue": "<JobQueue>", "status": "FAILED"}}, False),
        ({**CHANGE, "detail-type": "Batch Job Queue Blocked", "detail": {"jobQueue": "<JobQueue>"}}, False),
    ],
)
def test_the_rule_is_for_changes_of_jobs_in_this_queue(event: Any, expected: bool) -> None:  # noqa: ANN401  moto's type
    pattern = EventPattern.load(json.dumps(deployed()["EventsRule"]["EventPattern"]))
    assert pattern.matches_event(event) is expected


@pytest.mark.parametrize(
    ("principal", "source", "expected"),
    [
        ("Service:events.amazonaws.com", "<EventsRule.Arn>", True),
        ("Service:events.amazonaws.com", "arn:aws:events:us-east-1:111122223333:rule/another", False),
        ("Service:events.amazonaws.com", "", False),
        ("Service:sns.amazonaws.com", "<EventsRule.Arn>", False),
        (f"AWS:arn:aws:iam::{ACCOUNT}:root", "<EventsRule.Arn>", False),
    ],
)
def test_only_the_rule_puts_events_into_the_queue(principal: str, source: str, expected: bool) -> None:
    properties = deployed()["EventsQueuePolicy"]
    assert properties["Queues"] == ["<EventsQueue>"]
    context = {"aws:SourceArn": source} if source else {}
    call = Call(action="sqs:SendMessage", resource="<EventsQueue.Arn>", principal=principal, context=context)
    assert allows(properties["PolicyDocument"], call) is expected


def test_policies_and_access_are_for_what_the_template_makes() -> None:
    made = deployed()
    queue, definition = made["JobQueue"]["JobQueueName"], made["JobDefinition"]["JobDefinitionName"]
    arn = f"arn:aws:batch:{REGION}:{ACCOUNT}"
    submit = load("aws/batch-policy.json")["Statement"][0]
    assert set(submit["Resource"]) == {
        f"{arn}:job-queue/{queue}",
        f"{arn}:job-definition/{definition}",
        f"{arn}:job-definition/{definition}:*",
        f"{arn}:job/*",
    }
    (events,) = load("aws/batch-events-policy.json")["Statement"]
    assert events["Resource"] == f"arn:aws:sqs:{REGION}:{ACCOUNT}:{made['EventsQueue']['QueueName']}"
    namespaces = {
        one
        for name in ("batch-policy", "batch-register-policy")
        for statement in load(f"aws/{name}.json")["Statement"]
        for operator, keys in statement.get("Condition", {}).items()
        for key, one in keys.items()
        if key == "batch:EKSNamespace"
    }
    assert namespaces == {made.outputs["Namespace"]} == {BATCH_NAMESPACE}
    assert load("aws/batch-namespace-policy.json")["accessScope"] == {
        "type": "namespace",
        "namespaces": [BATCH_NAMESPACE],
    }


def test_batch_itself_is_one_user_in_the_cluster() -> None:
    (mapping,) = load("aws/batch-aws-auth-mapping.yaml")["iamIdentityMappings"]
    assert "groups" not in mapping
    # The role is AWS's and has a path, which aws-auth must not see and an access entry must.
    assert mapping["arn"] == f"arn:aws:iam::{ACCOUNT}:role/AWSServiceRoleForBatch"
    principal = load("aws/batch-namespace-policy.json")["principalArn"]
    assert principal == f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch"
    for name in ("aws-batch-role", "aws-batch-cluster-role"):
        role, binding = load(f"batch/{name}.yaml"), load(f"batch/{name}-binding.yaml")
        assert binding["subjects"] == [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": mapping["username"]}
        ]
        assert binding["roleRef"]["kind"] == role["kind"]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_only_batch_makes_pods_and_only_the_broker_keeps_records() -> None:
    ours = granted("batch/role.yaml")
    assert {one for one in ours if one.endswith(" pods")} == {"get pods", "list pods", "watch pods"}
    assert {one for one in ours if one.endswith(" configmaps")} == {
        f"{verb} configmaps" for verb in ("create", "get", "list", "watch", "patch", "delete")
    }
    # The rest is as for pods.
    same = {one for one in granted() if not one.endswith(" pods")}
    assert {one for one in ours if not one.endswith((" pods", " configmaps"))} == same
    theirs = load("batch/aws-batch-cluster-role.yaml")["rules"]
    assert {verb for rule in theirs for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert "secrets" not in words(theirs)


def test_the_pages_command_gives_what_has_no_default_and_nothing_that_is_unknown() -> None:
    text = BATCH_PAGE.read_text()
    commands = re.findall(r"aws cloudformation deploy (?:.*\\\n)*.*", text)
    assert commands
    needed = {name for name, one in TEMPLATE["Parameters"].items() if "Default" not in one}
    assert needed == set(NODES)
    for command in commands:
        assert "--template-file k8s/aws/batch.yaml" in command
        given = set(re.findall(r"\b([A-Z]\w+)=", command))
        assert given <= set(TEMPLATE["Parameters"])
        if "SPOT" not in command:
            assert needed <= given


def test_the_outputs_are_the_values_of_the_pages_configuration() -> None:
    text = BATCH_PAGE.read_text()
    (block,) = re.findall(r"^cat > podbroker\.toml <<'EOF'\n(.*?)^EOF", text, re.MULTILINE | re.DOTALL)
    (target,) = tomllib.loads(block)["targets"]
    outputs = deployed().outputs
    assert target["namespace"] == outputs["Namespace"]
    assert target["batch"]["queue"] == outputs["Queue"]
    assert target["batch"]["job_definition"] == outputs["JobDefinition"]
    told = " ".join(one["Description"] for one in TEMPLATE["Outputs"].values())
    keys = re.findall(r"\[targets\.batch\] (\w+)", told)
    assert keys == ["queue", "job_definition", "events_queue_url"]
    assert set(target["batch"]) <= set(keys)
    assert all(f"| `{key}` |" in text for key in keys)
