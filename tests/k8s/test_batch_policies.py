"""What the shipped policies let the role of a Batch target do, and what not."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import pytest

from k8s.policy import Call, allows
from k8s.shipped import load
from k8s.test_files import ACCOUNT, BATCH_NAMESPACE, BROKERS_ACCOUNT, REGION

if TYPE_CHECKING:
    from k8s.policy import Policy

ARN: Final = f"arn:aws:batch:{REGION}:{ACCOUNT}"
QUEUE: Final = f"{ARN}:job-queue/astro-remote-batch"
DEFINITION: Final = f"{ARN}:job-definition/astro-remote-batch"
REGISTERED: Final = f"{ARN}:job-definition/podbroker-0123abcd"
#: A job that is to be made has no id yet.
NEW_JOB: Final = f"{ARN}:job/*"
JOB: Final = f"{ARN}:job/6e3c0b7e-0000-4000-8000-000000000000"
OURS: Final = {"podbroker.io/instance": "prod"}


def submit(
    *policies: Policy,
    queue: str = QUEUE,
    definition: str = f"{DEFINITION}:3",
    tags: dict[str, str] = OURS,
    namespace: str = "",
    image: str = "",
) -> list[str]:
    """What of a submit is refused: Batch asks for the queue, the definition, the job, and for its tags."""
    context = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    # Known of the job alone, and only where the submit says it.
    about = {"batch:EKSNamespace": namespace, "batch:EKSImage": image}
    of_the_job = {**context, **{key: value for key, value in about.items() if value}}
    calls = {
        "queue": Call(action="batch:SubmitJob", resource=queue, context=context),
        "definition": Call(action="batch:SubmitJob", resource=definition, context=context),
        "job": Call(action="batch:SubmitJob", resource=NEW_JOB, context=of_the_job),
        "tags": Call(action="batch:TagResource", resource=NEW_JOB, context=context),
    }
    return [name for name, call in calls.items() if not any(allows(one, call) for one in policies)]


SUBMITS: Final = [
    ("as the broker does it", {}, []),
    ("with the newest revision", {"definition": DEFINITION}, []),
    ("with more tags", {"tags": {**OURS, "team": "data"}}, []),
    ("into its namespace, said once more", {"namespace": BATCH_NAMESPACE}, []),
    ("with another image", {"image": "busybox:1.37"}, []),
    ("into another namespace", {"namespace": "kube-system"}, ["job"]),
    ("without the tag", {"tags": {}}, ["queue", "definition", "job", "tags"]),
    ("in another's name", {"tags": {"podbroker.io/instance": "dev"}}, ["queue", "definition", "job", "tags"]),
    ("to another queue", {"queue": f"{QUEUE}-2"}, ["queue"]),
    ("in another region", {"queue": QUEUE.replace(REGION, "eu-west-1")}, ["queue"]),
    ("in another account", {"queue": QUEUE.replace(ACCOUNT, BROKERS_ACCOUNT)}, ["queue"]),
    ("from another definition", {"definition": f"{ARN}:job-definition/admin:1"}, ["definition"]),
    ("from one whose name begins the same", {"definition": f"{DEFINITION}-admin:1"}, ["definition"]),
    ("from one that the broker would have registered", {"definition": f"{REGISTERED}:1"}, ["definition"]),
]


@pytest.mark.parametrize(("request_", "expected"), [row[1:] for row in SUBMITS], ids=[row[0] for row in SUBMITS])
def test_the_role_of_a_batch_target_submits(request_: dict[str, Any], expected: list[str]) -> None:
    assert submit(load("aws/batch-policy.json"), **request_) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"definition": f"{REGISTERED}:1"}, []),
        ({}, []),
        ({"definition": f"{REGISTERED}:1", "namespace": "kube-system"}, ["job"]),
        ({"definition": f"{REGISTERED}:1", "queue": f"{QUEUE}-2"}, ["queue"]),
        ({"definition": f"{REGISTERED}:1", "tags": {}}, ["queue", "definition", "job", "tags"]),
        ({"definition": f"{ARN}:job-definition/admin:1"}, ["definition"]),
    ],
)
def test_with_the_policy_for_it_also_from_definitions_that_it_registered(
    request_: dict[str, Any], expected: list[str]
) -> None:
    policies = [load(f"aws/{name}.json") for name in ("batch-policy", "batch-register-policy")]
    assert submit(*policies, **request_) == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [("registry.example.com/team/etl:3", []), ("registry.example.com/other:3", ["job"]), ("busybox:1.37", ["job"])],
)
def test_images_can_be_narrowed_as_the_page_says(image: str, expected: list[str]) -> None:
    policy = copy.deepcopy(load("aws/batch-policy.json"))
    policy["Statement"][0]["Condition"]["StringLikeIfExists"] = {"batch:EKSImage": "registry.example.com/team/*"}
    assert submit(policy, image=image) == expected
    assert submit(policy) == []


OF_OURS: Final = {"aws:ResourceTag/podbroker.io/instance": "prod"}
OF_OTHERS: Final = {"aws:ResourceTag/podbroker.io/instance": "dev"}
TAGGED: Final = {"aws:RequestTag/podbroker.io/instance": "prod"}
CALLS: Final = [
    ("TerminateJob", JOB, OF_OURS, True),
    ("TerminateJob", f"{JOB}:7", OF_OURS, True),
    ("TerminateJob", JOB, OF_OTHERS, False),
    ("TerminateJob", JOB, {}, False),
    ("TerminateJob", JOB.replace(ACCOUNT, BROKERS_ACCOUNT), OF_OURS, False),
    # Terminate does all that cancel does, and more.
    ("CancelJob", JOB, OF_OURS, False),
    ("DescribeJobs", "*", {}, True),
    ("ListJobs", "*", {}, True),
    ("DescribeJobDefinitions", "*", {}, True),
    ("DescribeJobQueues", "*", {}, True),
    ("DescribeComputeEnvironments", "*", {}, True),
    ("TagResource", JOB, {"aws:RequestTag/podbroker.io/instance": "dev"}, False),
    ("TagResource", QUEUE, TAGGED, False),
    ("TagResource", f"{DEFINITION}:1", TAGGED, False),
    ("UntagResource", JOB, OF_OURS, False),
    ("RegisterJobDefinition", REGISTERED, {}, False),
    ("RegisterJobDefinition", DEFINITION, {}, False),
    ("DeregisterJobDefinition", f"{DEFINITION}:1", {}, False),
    ("UpdateJobQueue", QUEUE, {}, False),
    ("DeleteJobQueue", QUEUE, {}, False),
    ("CreateComputeEnvironment", f"{ARN}:compute-environment/x", {}, False),
    ("UpdateComputeEnvironment", f"{ARN}:compute-environment/x", {}, False),
]


@pytest.mark.parametrize(("action", "resource", "context", "expected"), CALLS)
def test_the_role_of_a_batch_target_may(action: str, resource: str, context: dict[str, str], expected: bool) -> None:
    call = Call(action=f"batch:{action}", resource=resource, context=context)
    assert allows(load("aws/batch-policy.json"), call) is expected


@pytest.mark.parametrize(
    ("name", "about", "expected"),
    [
        (REGISTERED, {}, True),
        (REGISTERED, {"batch:EKSNamespace": BATCH_NAMESPACE, "batch:EKSServiceAccountName": "default"}, True),
        (REGISTERED, {"batch:EKSPrivileged": "false", "batch:EKSImage": "busybox:1.37"}, True),
        (REGISTERED, {"batch:EKSNamespace": "kube-system"}, False),
        (REGISTERED, {"batch:EKSServiceAccountName": "admin"}, False),
        (REGISTERED, {"batch:EKSPrivileged": "true"}, False),
        (REGISTERED, {"aws:RequestTag/podbroker.io/instance": "dev"}, False),
        (DEFINITION, {}, False),
        (f"{ARN}:job-definition/another", {}, False),
    ],
)
def test_what_may_be_registered(name: str, about: dict[str, str], expected: bool) -> None:
    policy, context = load("aws/batch-register-policy.json"), {**TAGGED, **about}
    assert allows(policy, Call(action="batch:RegisterJobDefinition", resource=name, context=context)) is expected


@pytest.mark.parametrize(
    ("resource", "context", "expected"),
    [
        (f"{REGISTERED}:1", TAGGED, True),
        (f"{REGISTERED}:1", {}, False),
        (f"{DEFINITION}:1", TAGGED, False),
        (QUEUE, TAGGED, False),
    ],
)
def test_what_was_registered_is_tagged_and_nothing_else(resource: str, context: dict[str, str], expected: bool) -> None:
    call = Call(action="batch:TagResource", resource=resource, context=context)
    assert allows(load("aws/batch-register-policy.json"), call) is expected


EVENTS: Final = f"arn:aws:sqs:{REGION}:{ACCOUNT}:astro-remote-batch-events"


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [
        ("sqs:ReceiveMessage", EVENTS, True),
        ("sqs:DeleteMessage", EVENTS, True),
        ("sqs:ReceiveMessage", f"{EVENTS}-2", False),
        ("sqs:SendMessage", EVENTS, False),
        ("sqs:PurgeQueue", EVENTS, False),
        ("sqs:DeleteQueue", EVENTS, False),
        ("sqs:SetQueueAttributes", EVENTS, False),
    ],
)
def test_events_are_taken_from_the_one_queue(action: str, resource: str, expected: bool) -> None:
    assert allows(load("aws/batch-events-policy.json"), Call(action=action, resource=resource)) is expected


GROUP: Final = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/containerinsights/remote-kpo-demo/application"


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [
        # Of a group as a whole AWS asks with an empty name of a stream.
        ("logs:DescribeLogStreams", f"{GROUP}:log-stream:", True),
        ("logs:GetLogEvents", f"{GROUP}:log-stream:node-application.var.log.containers.x.log", True),
        ("logs:GetLogEvents", f"{GROUP}-2:log-stream:x", False),
        ("logs:FilterLogEvents", f"{GROUP}:log-stream:x", False),
        ("logs:PutLogEvents", f"{GROUP}:log-stream:x", False),
        ("logs:DeleteLogStream", f"{GROUP}:log-stream:x", False),
    ],
)
def test_lines_are_read_from_the_one_log_group(action: str, resource: str, expected: bool) -> None:
    assert allows(load("aws/batch-logs-policy.json"), Call(action=action, resource=resource)) is expected
