"""The files of k8s/batch on a real cluster: taken as they are, and each side may do its part and not the other's.

`k8s/` (the tests) reads the same files without a cluster.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from k8s.shipped import FOLDER, load
from k8s.template import api_input, deployed, operation

from e2e.test_manifests import WAYS, kubectl
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.site import Site

#: In the order of the walk-through; those of AWS Batch itself last.
FILES: Final = (
    *("namespace.yaml", "role.yaml", "role-binding.yaml"),
    *("aws-batch-cluster-role.yaml", "aws-batch-cluster-role-binding.yaml"),
    *("aws-batch-role.yaml", "aws-batch-role-binding.yaml"),
)
NAMESPACE: Final[str] = load("batch/namespace.yaml")["metadata"]["name"]
OURS: Final = ("--as", "any", "--as-group", "podbroker-remote")
BATCH: Final = ("--as", "aws-batch")


def apply(site: Site) -> list[str]:
    """Applies the files as the page says; returns what kubectl did with each."""
    told = []
    for name in FILES:
        done = kubectl(site, "apply", "--validate=strict", "-f", str(FOLDER / "batch" / name))
        assert (done.returncode, done.stderr) == (0, "")
        told.append(done.stdout.split()[-1])
    return told


@pytest.fixture(scope="module", autouse=True)
def _installed(site: Site) -> Iterator[None]:
    """The namespace and the roles, as the page installs them; afterwards as it was before."""
    if not site.is_own:
        pytest.skip("elsewhere: a namespace of a fixed name, users and cluster roles are made")
    was_there = kubectl(site, "get", "namespace", NAMESPACE).returncode == 0
    apply(site)
    wait_for("the default service account", lambda: site.has_service_account(NAMESPACE))
    # Authorization follows the bindings by a watch of its own.
    wait_for("the bindings to count", lambda: allowed(site, OURS, "list pods") and allowed(site, BATCH, "list nodes"))
    try:
        yield
    finally:
        if not was_there:
            for name in reversed(FILES):
                kubectl(site, "delete", "--wait=true", "-f", str(FOLDER / "batch" / name))


def allowed(site: Site, who: tuple[str, ...], what: str, *, namespace: str = NAMESPACE) -> bool:
    """Whether the cluster lets somebody do it, by its own word."""
    verb, resource = what.split()
    resource, _, subresource = resource.partition("/")
    more = ("--subresource", subresource) if subresource else ()
    where = ("--all-namespaces",) if namespace == "*" else ("-n", namespace)
    asked = kubectl(site, "auth", "can-i", verb, resource, *more, *where, *who)
    return asked.stdout.strip() == "yes"


def test_there_is_no_file_that_is_not_applied() -> None:
    assert {path.name for path in (FOLDER / "batch").iterdir()} == set(FILES)


def test_a_strict_cluster_takes_the_files_and_has_nothing_to_say_about_them(site: Site) -> None:
    for name in FILES:
        done = kubectl(site, "apply", "--dry-run=server", "--validate=strict", "-f", str(FOLDER / "batch" / name))
        assert (done.returncode, done.stderr) == (0, "")
    assert apply(site) == ["unchanged"] * len(FILES)


MAY: Final = [
    *((OURS, f"{verb} configmaps", True) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *((OURS, f"{verb} pods", True) for verb in ("get", "list", "watch")),
    *((OURS, f"{verb} pods", False) for verb in ("create", "patch", "delete")),
    (OURS, "get pods/log", True),
    (OURS, "create pods/exec", False),
    (OURS, "list events", True),
    (OURS, "get secrets", False),
    (OURS, "list nodes", False),
    *((OURS, f"{verb} leases", True) for verb in ("create", "list", "patch", "delete")),
    *((BATCH, f"{verb} pods", True) for verb in ("create", "get", "list", "watch", "delete", "patch")),
    (BATCH, "get serviceaccounts", True),
    (BATCH, "list roles", True),
    *((BATCH, f"{verb} nodes", True) for verb in ("get", "list", "watch")),
    (BATCH, "delete nodes", False),
    (BATCH, "create configmaps", False),
    (BATCH, "get secrets", False),
    (BATCH, "get pods/log", False),
]


@pytest.mark.parametrize(("who", "what", "expected"), MAY, ids=[f"{who[1]} {what}" for who, what, _ in MAY])
def test_in_the_namespace_each_side_may_do_its_part(
    site: Site, who: tuple[str, ...], what: str, expected: bool
) -> None:
    assert allowed(site, who, what) is expected


@pytest.mark.parametrize(
    ("who", "what", "expected"),
    [
        (OURS, "list pods", False),
        (OURS, "list configmaps", False),
        (BATCH, "list pods", True),
        (BATCH, "list events", True),
        (BATCH, "list daemonsets.apps", True),
        (BATCH, "create pods", False),
        (BATCH, "delete pods", False),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else str(value),
)
def test_elsewhere_the_broker_may_nothing_and_batch_may_look(
    site: Site, who: tuple[str, ...], what: str, expected: bool
) -> None:
    assert allowed(site, who, what, namespace="kube-system") is expected


@pytest.mark.parametrize("way", WAYS)
def test_of_two_replicas_one_gets_to_keep_a_record(site: Site, way: str) -> None:
    user, groups = WAYS[way]
    who = ("--as", user, *(word for group in groups for word in ("--as-group", group)), "-n", NAMESPACE)
    record = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"record-{user.lower()}", "finalizers": ["podbroker.io/outcome"]},
    }
    name = f"configmap/{record['metadata']['name']}"  # type: ignore[index]  # a mapping, as one sees
    try:
        assert kubectl(site, "create", "-f", "-", *who, stdin=json.dumps(record)).returncode == 0
        second = kubectl(site, "create", "-f", "-", *who, stdin=json.dumps(record))
        assert "AlreadyExists" in second.stderr
    finally:
        # The finalizer comes off by a patch, and the record then goes.
        off = '{"metadata":{"finalizers":null}}'
        assert kubectl(site, "patch", name, *who, "--type", "merge", "-p", off).returncode == 0
        assert kubectl(site, "delete", name, *who).returncode == 0


def job_pod(**spec: Any) -> dict[str, Any]:  # noqa: ANN401  fields of a pod
    """A pod as AWS Batch makes it of the shipped job definition."""
    shape = operation("batch", "RegisterJobDefinition").input_shape
    definition = api_input(shape, deployed()["JobDefinition"])["eksProperties"]["podProperties"]
    taint = {"key": "batch.amazonaws.com/batch-node", "operator": "Exists"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "aws-batch.6e3c0b7e-0000-4000-8000-000000000000",
            "labels": {"batch.amazonaws.com/job-id": "9f1c2d3e-0000-4000-8000-000000000000"},
        },
        "spec": {
            **definition,
            "restartPolicy": "Never",
            "tolerations": [{**taint, "effect": "NoSchedule"}, {**taint, "effect": "NoExecute"}],
            **spec,
        },
    }


@pytest.mark.parametrize(
    ("spec", "refusal"),
    [
        ({}, ""),
        ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, "host namespaces (hostNetwork=true)"),
        ({"volumes": [{"name": "node", "hostPath": {"path": "/"}}]}, "hostPath volumes"),
    ],
    ids=["the shipped definition", "the default network of Batch", "a path of the node"],
)
def test_the_namespace_takes_the_pod_of_the_shipped_definition_and_none_that_reaches_into_its_node(
    site: Site, spec: dict[str, Any], refusal: str
) -> None:
    pod = json.dumps(job_pod(**spec))
    asked = ("create", "--dry-run=server", "--validate=strict", "-f", "-", "-n", NAMESPACE, *BATCH)
    done = kubectl(site, *asked, stdin=pod)
    assert (done.returncode == 0) is (refusal == ""), done.stderr
    assert refusal in done.stderr
