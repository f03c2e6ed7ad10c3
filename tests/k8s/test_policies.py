"""What the shipped IAM policies allow and refuse, and that AWS's own data finds nothing odd in them."""

from __future__ import annotations

import copy
import json
import re
from typing import Any, Final

import pytest
from parliament import analyze_policy_string  # type: ignore[import-untyped]  # it has no types
from policy_sentry.analysis.expand import get_expanded_policy
from policy_sentry.querying.actions import get_action_data

from k8s.policy import Call, Policy, allows, can_carry, refused
from k8s.shipped import load
from k8s.test_files import ACCOUNT, BROKERS_ACCOUNT, BROKERS_ROLE, CLUSTER, POLICIES, REGION, ROLE

THE_CLUSTER: Final = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"
#: What the roles of the walk-through may do, all of it.
GRANTED: Final = {
    "aws/permission-policy.json": {"eks:DescribeCluster"},
    "aws/broker-policy.json": {"sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"},
    "aws/archive-policy.json": {"s3:ListBucket", "s3:PutObject", "s3:GetObject", "s3:DeleteObject"},
    "aws/iam-assume-role-policy.json": {"sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"},
    "aws/broker-trust-irsa.json": {"sts:AssumeRoleWithWebIdentity"},
    "aws/broker-trust-pod-identity.json": {"sts:AssumeRole", "sts:TagSession"},
    "aws/batch-policy.json": {
        *("batch:SubmitJob", "batch:TagResource", "batch:TerminateJob", "batch:DescribeJobs", "batch:ListJobs"),
        *("batch:DescribeJobDefinitions", "batch:DescribeJobQueues", "batch:DescribeComputeEnvironments"),
    },
    "aws/batch-register-policy.json": {"batch:RegisterJobDefinition", "batch:TagResource", "batch:SubmitJob"},
    "aws/batch-events-policy.json": {"sqs:ReceiveMessage", "sqs:DeleteMessage"},
    "aws/batch-logs-policy.json": {"logs:DescribeLogStreams", "logs:GetLogEvents"},
}
#: The role that a trust policy is on, for linters that want a resource in every statement.
TRUSTED: Final = {
    "aws/iam-assume-role-policy.json": ROLE,
    "aws/broker-trust-irsa.json": BROKERS_ROLE,
    "aws/broker-trust-pod-identity.json": BROKERS_ROLE,
}


def findings(policy: Policy) -> list[str]:
    """What parliament has to say, as `ISSUE: detail`."""
    # Left out: CREDENTIALS_EXPOSURE of its community rules, which says that sts:AssumeRole gives credentials.
    return [f"{one.issue}: {one.detail}" for one in analyze_policy_string(json.dumps(policy)).findings]


def as_on_a_role(name: str) -> Policy:
    """The policy with the resource that a trust policy leaves out."""
    policy = load(name)
    for statement in policy["Statement"]:
        if name in TRUSTED:
            assert "Resource" not in statement
            statement["Resource"] = TRUSTED[name]
    return policy


#: Parliament knows the public web identity providers and their keys, and not a cluster's own.
OWN_PROVIDER: Final = re.compile(
    r"UNKNOWN_FEDERATION_SOURCE: arn:aws:iam::\d+:oidc-provider/oidc\.eks\.|"
    r"UNKNOWN_CONDITION_FOR_ACTION: .* oidc\.eks\."
)


@pytest.mark.parametrize("name", POLICIES)
def test_parliament_finds_nothing(name: str) -> None:
    assert [one for one in findings(as_on_a_role(name)) if not OWN_PROVIDER.match(one)] == []


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"Action": "eks:DescribeClusters"}, "UNKNOWN_ACTION"),
        ({"Resource": f"arn:aws:eks:{REGION}:{ACCOUNT}:nodegroup/{CLUSTER}"}, "RESOURCE_MISMATCH"),
        ({"Condition": {"StringEquals": {"sts:ExternalId": "x"}}}, "UNKNOWN_CONDITION_FOR_ACTION"),
    ],
)
def test_parliament_would_find_what_is_wrong(change: dict[str, Any], issue: str) -> None:
    policy = load("aws/permission-policy.json")
    policy["Statement"][0].update(change)
    assert [one.partition(":")[0] for one in findings(policy)] == [issue]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_grants_these_actions_and_no_other(name: str) -> None:
    expanded = get_expanded_policy(as_on_a_role(name))
    granted: set[str] = set()
    for statement in expanded["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        granted |= {actions} if isinstance(actions, str) else set(actions)
    assert {action.lower() for action in granted} == {action.lower() for action in GRANTED[name]}


def test_the_role_of_the_target_can_change_nothing_in_aws() -> None:
    for action in GRANTED["aws/permission-policy.json"]:
        service, _, name = action.partition(":")
        assert {row["access_level"] for row in get_action_data(service, name)[service]} <= {"Read", "List"}


@pytest.mark.parametrize("name", POLICIES)
def test_each_condition_is_on_a_key_that_its_actions_have(name: str) -> None:
    for statement in load(name)["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            for keys in statement.get("Condition", {}).values():
                assert [key for key in keys if not can_carry(action, key)] == []


BUCKET: Final = "arn:aws:s3:::example-logs"


@pytest.mark.parametrize(
    ("action", "resource", "prefix", "expected"),
    [
        ("s3:PutObject", f"{BUCKET}/podbroker/default/executions/x/outcome.json", "", True),
        ("s3:GetObject", f"{BUCKET}/podbroker/default/executions/x/outcome.json", "", True),
        ("s3:DeleteObject", f"{BUCKET}/podbroker/default/days/2026-11-21/x", "", True),
        ("s3:ListBucket", BUCKET, "podbroker/default/executions/x/", True),
        ("s3:ListBucket", BUCKET, "", False),
        ("s3:ListBucket", BUCKET, "others/", False),
        ("s3:GetObject", f"{BUCKET}/others/x", "", False),
        ("s3:PutObject", "arn:aws:s3:::another/podbroker/x", "", False),
        ("s3:PutObjectAcl", f"{BUCKET}/podbroker/x", "", False),
        ("s3:DeleteBucket", BUCKET, "", False),
    ],
)
def test_the_archive_may_use_its_own_folder_and_nothing_else(
    action: str, resource: str, prefix: str, expected: bool
) -> None:
    context = {"s3:prefix": prefix} if prefix else {}
    call = Call(action=action, resource=resource, context=context)
    assert allows(load("aws/archive-policy.json"), call) is expected


ROLES_CALLS: Final = [
    ("eks:DescribeCluster", THE_CLUSTER, True),
    ("eks:describecluster", THE_CLUSTER, True),  # the names of actions have no case
    ("eks:DescribeCluster", f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}-2", False),
    ("eks:DescribeCluster", f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/another", False),
    ("eks:DescribeCluster", f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/{CLUSTER}", False),
    ("eks:DescribeCluster", f"arn:aws:eks:{REGION}:{BROKERS_ACCOUNT}:cluster/{CLUSTER}", False),
    ("eks:ListClusters", "*", False),
    ("eks:AccessKubernetesApi", THE_CLUSTER, False),
    ("eks:CreateAccessEntry", THE_CLUSTER, False),
    ("eks:AssociateAccessPolicy", THE_CLUSTER, False),
    ("eks:UpdateClusterConfig", THE_CLUSTER, False),
    ("eks:DeleteCluster", THE_CLUSTER, False),
    # The three node policies that this one replaces.
    ("ec2:DescribeInstances", "*", False),
    ("ec2:CreateNetworkInterface", "*", False),
    ("ec2:DeleteNetworkInterface", "*", False),
    ("ec2:CreateTags", "arn:aws:ec2:us-east-1:111122223333:network-interface/eni-1", False),
    ("eks-auth:AssumeRoleForPodIdentity", THE_CLUSTER, False),
    ("ecr:GetAuthorizationToken", "*", False),
    ("ecr:BatchGetImage", f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/secret", False),
    # And what would be worth stealing credentials for.
    ("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/Admin", False),
    ("iam:PassRole", ROLE, False),
    ("s3:GetObject", "arn:aws:s3:::bucket/key", False),
    ("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:x", False),
    ("batch:SubmitJob", f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/kpo", False),
]


@pytest.mark.parametrize(("action", "resource", "expected"), ROLES_CALLS)
def test_the_role_of_the_target_may(action: str, resource: str, expected: bool) -> None:
    assert allows(load("aws/permission-policy.json"), Call(action=action, resource=resource)) is expected


BROKERS_CALLS: Final = [
    ("sts:AssumeRole", ROLE, True),
    ("sts:TagSession", ROLE, True),
    ("sts:SetSourceIdentity", ROLE, True),
    ("sts:AssumeRole", f"{ROLE}Admin", False),
    ("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/Admin", False),
    ("sts:AssumeRole", f"arn:aws:iam::{BROKERS_ACCOUNT}:role/AstroRemoteKPO", False),
    ("sts:AssumeRole", BROKERS_ROLE, False),
    ("sts:GetFederationToken", f"arn:aws:sts::{BROKERS_ACCOUNT}:federated-user/x", False),
    ("eks:DescribeCluster", THE_CLUSTER, False),
    ("iam:CreateAccessKey", f"arn:aws:iam::{BROKERS_ACCOUNT}:user/x", False),
]


@pytest.mark.parametrize(("action", "resource", "expected"), BROKERS_CALLS)
def test_the_broker_itself_may(action: str, resource: str, expected: bool) -> None:
    assert allows(load("aws/broker-policy.json"), Call(action=action, resource=resource)) is expected


RIGHT: Final = {"principal": f"AWS:{BROKERS_ROLE}", "external_id": "astro-remote-kpo"}
ASSUMING: Final = [
    ("as configured", {}, []),
    ("with tags, its own or those of a pod identity", {"tags": ("team",)}, []),
    ("with a source identity", {"source_identity": "podbroker-prod"}, []),
    ("with all of it", {"tags": ("team",), "source_identity": "podbroker"}, []),
    ("without an external id", {"external_id": ""}, ["sts:AssumeRole"]),
    ("with another external id", {"external_id": "astro-remote-kp"}, ["sts:AssumeRole"]),
    ("with an external id in other case", {"external_id": "Astro-Remote-KPO"}, ["sts:AssumeRole"]),
    ("as somebody else", {"source_identity": "alice"}, ["sts:SetSourceIdentity"]),
    ("another role", {"principal": f"AWS:{BROKERS_ROLE}-dev"}, ["sts:AssumeRole"]),
    ("the same name elsewhere", {"principal": f"AWS:arn:aws:iam::{ACCOUNT}:role/podbroker"}, ["sts:AssumeRole"]),
    ("the whole account", {"principal": f"AWS:arn:aws:iam::{BROKERS_ACCOUNT}:root"}, ["sts:AssumeRole"]),
    ("a service of AWS", {"principal": "Service:ec2.amazonaws.com"}, ["sts:AssumeRole"]),
]


def assuming(trust: Policy, own: Policy | None = None, **request: Any) -> list[str]:  # noqa: ANN401  those of `refused`
    """What is refused of the broker's taking on the role of the target."""
    return refused(own=own or load("aws/broker-policy.json"), trust=trust, role=ROLE, **{**RIGHT, **request})


@pytest.mark.parametrize(("request_", "expected"), [row[1:] for row in ASSUMING], ids=[row[0] for row in ASSUMING])
def test_the_role_of_the_target_is_taken_on(request_: dict[str, Any], expected: list[str]) -> None:
    assert assuming(load("aws/iam-assume-role-policy.json"), **request_) == expected


@pytest.mark.parametrize("side", ["aws/iam-assume-role-policy.json", "aws/broker-policy.json"])
@pytest.mark.parametrize("action", ["sts:TagSession", "sts:SetSourceIdentity"])
def test_what_is_left_out_on_either_side_is_refused_only_to_those_who_need_it(side: str, action: str) -> None:
    policies = {name: load(name) for name in ("aws/iam-assume-role-policy.json", "aws/broker-policy.json")}
    for statement in policies[side]["Statement"]:
        actions = statement["Action"]
        statement["Action"] = [one for one in ([actions] if isinstance(actions, str) else actions) if one != action]
    trust, own = policies["aws/iam-assume-role-policy.json"], policies["aws/broker-policy.json"]
    assert assuming(trust, own) == []
    assert assuming(trust, own, tags=("team",), source_identity="podbroker") == [action]


def test_an_external_id_in_the_statement_that_allows_tags_refuses_all_tags() -> None:
    merged = load("aws/iam-assume-role-policy.json")
    statement = copy.deepcopy(merged["Statement"][0])
    statement["Action"] = ["sts:AssumeRole", "sts:TagSession"]
    merged["Statement"] = [statement]
    assert assuming(merged) == []
    assert assuming(merged, tags=("team",)) == ["sts:TagSession"]


PROVIDER: Final = "oidc.eks.us-east-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
WEB: Final = [
    ("sts.amazonaws.com", "system:serviceaccount:podbroker:podbroker", True),
    ("sts.amazonaws.com", "system:serviceaccount:podbroker:default", False),
    ("sts.amazonaws.com", "system:serviceaccount:astro-remote-kpo:podbroker", False),
    ("kubernetes", "system:serviceaccount:podbroker:podbroker", False),
]


@pytest.mark.parametrize(("audience", "subject", "expected"), WEB)
def test_the_brokers_role_is_for_the_brokers_service_account(audience: str, subject: str, expected: bool) -> None:
    found = refused(
        own=None,
        trust=load("aws/broker-trust-irsa.json"),
        role=BROKERS_ROLE,
        principal=f"Federated:arn:aws:iam::{BROKERS_ACCOUNT}:oidc-provider/{PROVIDER}",
        action="sts:AssumeRoleWithWebIdentity",
        context={f"{PROVIDER}:aud": audience, f"{PROVIDER}:sub": subject},
    )
    assert (found == []) is expected


@pytest.mark.parametrize(("service", "expected"), [("pods.eks.amazonaws.com", True), ("ec2.amazonaws.com", False)])
@pytest.mark.parametrize("action", ["sts:AssumeRole", "sts:TagSession"])
def test_the_brokers_role_is_for_the_pod_identity_agent(service: str, action: str, expected: bool) -> None:
    call = Call(action=action, resource=BROKERS_ROLE, principal=f"Service:{service}")
    assert allows(load("aws/broker-trust-pod-identity.json"), call) is expected
