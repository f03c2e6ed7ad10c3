"""The shipped files parse, have the kinds they should have, and speak of the same things by the same names."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from botocore.session import Session
from botocore.validate import validate_parameters

from k8s.shipped import NAMES, PAGE, PAGES, ROOT, load

#: The names of the walk-through, which each file must use.
ACCOUNT: Final = "111122223333"
BROKERS_ACCOUNT: Final = "444455556666"
REGION: Final = "us-east-1"
CLUSTER: Final = "remote-kpo-demo"
NAMESPACE: Final = "astro-remote-kpo"
BATCH_NAMESPACE: Final = "astro-remote-batch"
JOBS_NAMESPACE: Final = "astro-remote-jobs"
USER: Final = "AstroRemoteKPO"
GROUP: Final = "podbroker-remote"
ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/AstroRemoteKPO"
BROKERS_ROLE: Final = f"arn:aws:iam::{BROKERS_ACCOUNT}:role/podbroker"

KINDS: Final = {
    "remote/cluster.yaml": ("eksctl.io/v1alpha5", "ClusterConfig"),
    "remote/namespace.yaml": ("v1", "Namespace"),
    "remote/role.yaml": ("rbac.authorization.k8s.io/v1", "Role"),
    "remote/role-binding.yaml": ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    "batch/namespace.yaml": ("v1", "Namespace"),
    "batch/role.yaml": ("rbac.authorization.k8s.io/v1", "Role"),
    "batch/role-binding.yaml": ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    "batch/aws-batch-role.yaml": ("rbac.authorization.k8s.io/v1", "Role"),
    "batch/aws-batch-role-binding.yaml": ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    "batch/aws-batch-cluster-role.yaml": ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    "batch/aws-batch-cluster-role-binding.yaml": ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    "jobs/namespace.yaml": ("v1", "Namespace"),
    "jobs/role.yaml": ("rbac.authorization.k8s.io/v1", "Role"),
    "jobs/role-binding.yaml": ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    "aws/aws-auth-mapping.yaml": ("eksctl.io/v1alpha5", "ClusterConfig"),
    "aws/batch-aws-auth-mapping.yaml": ("eksctl.io/v1alpha5", "ClusterConfig"),
    "aws/broker-service-account.yaml": ("v1", "ServiceAccount"),
}
POLICIES: Final = (
    "aws/iam-assume-role-policy.json",
    "aws/permission-policy.json",
    "aws/broker-policy.json",
    "aws/archive-policy.json",
    "aws/batch-policy.json",
    "aws/batch-register-policy.json",
    "aws/batch-events-policy.json",
    "aws/batch-logs-policy.json",
    "aws/broker-trust-irsa.json",
    "aws/broker-trust-pod-identity.json",
)
#: Inputs of the AWS command line, with the operation that takes them.
INPUTS: Final = {
    "aws/access-entry.json": "CreateAccessEntry",
    "aws/broker-pod-identity.json": "CreatePodIdentityAssociation",
    "aws/batch-namespace-policy.json": "AssociateAccessPolicy",
}
#: Templates of CloudFormation; test_batch.py looks into them.
TEMPLATES: Final = ("aws/batch.yaml",)


def test_there_is_no_file_that_nobody_looks_at() -> None:
    assert sorted([*KINDS, *POLICIES, *INPUTS, *TEMPLATES]) == NAMES


@pytest.mark.parametrize("name", KINDS)
def test_a_manifest_is_of_its_kind(name: str) -> None:
    document = load(name)
    assert (document["apiVersion"], document["kind"]) == KINDS[name]


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_is_one_that_the_aws_command_line_takes(name: str) -> None:
    model = Session().get_service_model("eks").operation_model(INPUTS[name])
    assert model.input_shape is not None
    given = load(name)
    # What it does not know, botocore ignores; the command line does not.
    assert set(given) <= set(model.input_shape.members)
    validate_parameters(given, model.input_shape)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_has_the_version_that_has_variables_and_statements_with_names_of_their_own(name: str) -> None:
    policy = load(name)
    assert set(policy) == {"Version", "Statement"}
    assert policy["Version"] == "2012-10-17"
    names = [statement["Sid"] for statement in policy["Statement"]]
    assert len(names) == len(set(names))


def test_the_cluster_is_the_same_everywhere() -> None:
    for name in ("remote/cluster.yaml", "aws/aws-auth-mapping.yaml", "aws/batch-aws-auth-mapping.yaml"):
        metadata = load(name)["metadata"]
        assert (metadata["name"], metadata["region"]) == (CLUSTER, REGION)
    for name in ("aws/access-entry.json", "aws/batch-namespace-policy.json"):
        assert load(name)["clusterName"] == CLUSTER
    assert load("aws/batch.yaml")["Parameters"]["Cluster"]["Default"] == CLUSTER
    (statement,) = load("aws/permission-policy.json")["Statement"]
    assert statement["Resource"] == f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"


def test_the_role_is_the_same_everywhere_and_has_no_path() -> None:
    (entry,) = load("remote/cluster.yaml")["accessConfig"]["accessEntries"]
    (mapping,) = load("aws/aws-auth-mapping.yaml")["iamIdentityMappings"]
    (policy,) = load("aws/broker-policy.json")["Statement"]
    assert entry["principalARN"] == ROLE
    assert mapping["arn"] == ROLE
    assert policy["Resource"] == ROLE
    assert load("aws/access-entry.json")["principalArn"] == ROLE
    # A session's ARN has no path, so aws-auth finds no role by an ARN that has one.
    assert ROLE.count("/") == 1


def test_the_brokers_own_role_is_the_same_everywhere() -> None:
    for statement in load("aws/iam-assume-role-policy.json")["Statement"]:
        assert statement["Principal"] == {"AWS": BROKERS_ROLE}
    account = load("aws/broker-service-account.yaml")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == BROKERS_ROLE
    association = load("aws/broker-pod-identity.json")
    assert association["roleArn"] == BROKERS_ROLE
    assert association["serviceAccount"] == account["metadata"]["name"]
    assert association["namespace"] == account["metadata"]["namespace"]


@pytest.mark.parametrize("folder", ["remote", "batch", "jobs"])
def test_both_ways_into_the_cluster_are_bound_to_the_role(folder: str) -> None:
    binding = load(f"{folder}/role-binding.yaml")
    subjects = {(one["kind"], one["name"]) for one in binding["subjects"]}
    assert subjects == {("Group", GROUP), ("User", USER)}
    role = load(f"{folder}/role.yaml")["metadata"]
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["name"]}
    for entry in (load("aws/access-entry.json"), *load("remote/cluster.yaml")["accessConfig"]["accessEntries"]):
        assert entry["kubernetesGroups"] == [GROUP]
        # EKS then takes the session's ARN, so that the audit log says which broker it was.
        assert not {"username", "kubernetesUsername"} & set(entry)
    (mapping,) = load("aws/aws-auth-mapping.yaml")["iamIdentityMappings"]
    assert mapping["username"] == USER
    assert "groups" not in mapping, "system:masters is one word away"


@pytest.mark.parametrize(
    ("folder", "expected"), [("remote", NAMESPACE), ("batch", BATCH_NAMESPACE), ("jobs", JOBS_NAMESPACE)]
)
def test_everything_of_a_target_in_the_cluster_is_in_its_one_namespace(folder: str, expected: str) -> None:
    namespace = load(f"{folder}/namespace.yaml")["metadata"]
    assert namespace["name"] == expected
    for name in KINDS:
        if name.startswith(folder) and KINDS[name][1] in {"Role", "RoleBinding"}:
            assert load(name)["metadata"]["namespace"] == expected
    levels = {key.rpartition("/")[2]: value for key, value in namespace["labels"].items()}
    assert levels == {"enforce": "baseline", "warn": "restricted", "audit": "restricted"}


#: The roles by the names of the tables of verbs that the broker checks.
CHECKED: Final = {
    "VERBS": "remote/role.yaml",
    "VERBS_FOR_JOBS": "batch/role.yaml",
    "VERBS_FOR_CLUSTER_JOBS": "jobs/role.yaml",
}


def test_a_role_has_the_verbs_that_the_broker_checks_no_more_and_no_less() -> None:
    source = (ROOT / "broker/src/backend/pod/check.rs").read_text()
    tables = dict(re.findall(r"const (VERBS\w*): \[.*?\] = \[(.*?)\];", source, re.DOTALL))
    assert "VERBS" in tables
    for name, table in tables.items():
        checked = re.findall(r'\("(\w+)", "(\w+)", "(\w*)"\)', table)
        assert len(checked) == table.count("(")
        verbs = [f"{verb} {resource}/{sub}".rstrip("/") for verb, resource, sub in checked]
        assert sorted(verbs) == sorted(granted(CHECKED[name]))


@pytest.mark.parametrize(
    ("name", "after"),
    [("remote/role.yaml", "podbroker check"), ("batch/role.yaml", "Batch's"), ("jobs/role.yaml", "that runs Jobs")],
)
def test_the_page_of_permissions_has_a_row_for_each_verb_of_a_role(name: str, after: str) -> None:
    text = (ROOT / "docs/rbac.md").read_text()
    table = re.search(rf"{re.escape(after)}.*?\n\n(\|.*?\n)\n", text, re.DOTALL)
    assert table is not None
    rows = re.findall(r"^\| `([\w/]+)` \| `(\w+)` \|", table[1], re.MULTILINE)
    assert [f"{verb} {resource}" for resource, verb in rows] == granted(name)


def granted(name: str = "remote/role.yaml") -> list[str]:
    """What a shipped role grants, as `verb resource`."""
    role = load(name)
    found = []
    for rule in role["rules"]:
        groups = {"leases": "coordination.k8s.io", "jobs": "batch"}
        assert rule["apiGroups"] == [groups.get(rule["resources"][0], "")]
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        found += [f"{verb} {resource}" for resource in rule["resources"] for verb in rule["verbs"]]
    assert not [one for one in found if "*" in one]
    return found


def test_the_cluster_lets_pods_have_identities_and_keeps_them_from_the_nodes() -> None:
    cluster = load("remote/cluster.yaml")
    assert cluster["iam"]["withOIDC"] is True
    assert cluster["accessConfig"]["authenticationMode"] == "API_AND_CONFIG_MAP"
    assert isinstance(cluster["metadata"]["version"], str), "1.30 without quotes is the number 1.3"
    for group in cluster["managedNodeGroups"]:
        assert group["disablePodIMDS"] is True
        assert group["minSize"] <= group["desiredCapacity"] <= group["maxSize"] <= 3


def words(value: Any) -> list[str]:  # noqa: ANN401  any document
    """All strings in a document, keys too."""
    if isinstance(value, dict):
        return [word for key, one in value.items() for word in [key, *words(one)]]
    if isinstance(value, list):
        return [word for one in value for word in words(one)]
    return [str(value)]


@pytest.mark.parametrize("name", NAMES)
def test_no_account_is_a_real_one(name: str) -> None:
    accounts = {found for word in words(load(name)) for found in re.findall(r"(?<!\w)\d{12}(?!\w)", word)}
    assert accounts <= {ACCOUNT, BROKERS_ACCOUNT}


@pytest.mark.parametrize("name", NAMES)
def test_the_page_speaks_of_each_file(name: str) -> None:
    assert any(f"k8s/{name}" in page.read_text() for page in PAGES), "a file that no page mentions is found by nobody"


def test_each_file_that_the_page_names_is_there() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"\bk8s/((?:remote|aws|batch|jobs)/[\w.-]+\.(?:yaml|json))", pages))
    assert named == set(NAMES)


def test_the_page_has_a_row_for_each_way_in_which_a_check_is_known_to_fail() -> None:
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, | or )?)+).*?\|", PAGE.read_text(), re.MULTILINE)
    explained = {link for row in rows for link in re.findall(r"`([a-z-]+)`", row)}
    golden = [path.read_text() for path in (ROOT / "tests/e2e/golden/check").glob("*.txt")]
    failing = {found for text in golden for found in re.findall(r"^FAIL +([a-z-]+)", text, re.MULTILINE)}
    assert {"workload-identity", "role", "cluster", "connect", "token", "permission"} <= failing <= explained
