"""The files of k8s/remote on a real cluster: taken as they are, enough for everything, and not a verb too many.

`k8s/` (the tests) reads the same files without a cluster.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

import podbroker
from e2e.broker import TARGET
from e2e.following import Story, collect, follow, follow_until, has_line
from e2e.manifests import container, pod, shell
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.broker import Broker, Brokers
    from e2e.site import Site
    from podbroker import Client

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "k8s/remote"
#: In the order of the walk-through; `cluster.yaml` beside them is eksctl's.
FILES: Final = ("namespace.yaml", "role.yaml", "role-binding.yaml")
ROLE: Final = yaml.safe_load((FOLDER / "role.yaml").read_text())
NAMESPACE: Final[str] = ROLE["metadata"]["namespace"]
#: The two ways into a cluster, as (user, groups): aws-auth names a user, an access entry a group.
WAYS: Final = {
    "aws-auth": ("AstroRemoteKPO", ("nobody-special",)),
    "access entry": ("podbroker-session", ("podbroker-remote",)),
}
#: What a check says of a verb that is missing: of one that pods need, and of one that they run without.
NOT_HELD: Final = (podbroker.CheckStatus.FAILED, podbroker.CheckStatus.WARNING)


def kubectl(site: Site, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Calls kubectl as a person does, warnings and all."""
    command = [*site.cluster.kubectl_command(), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)


def apply(site: Site, *, role: dict[str, Any] | None = None) -> str:
    """Applies the files as the page says, the role in another version if one is given."""
    told = []
    for name in FILES:
        content = (FOLDER / name).read_text()
        if role is not None and name == "role.yaml":
            content = yaml.safe_dump(role)
        done = kubectl(site, "apply", "--validate=strict", "-f", "-", stdin=content)
        assert (done.returncode, done.stderr) == (0, "")
        told.append(done.stdout)
    return "".join(told)


@pytest.fixture(scope="module")
def installed(site: Site) -> Iterator[str]:
    """The namespace of the shipped files, as the page installs them; afterwards as it was before."""
    if not site.is_own:
        pytest.skip("elsewhere: a namespace of a fixed name and users are made")
    was_there = kubectl(site, "get", "namespace", NAMESPACE).returncode == 0
    apply(site)
    wait_for("the default service account", lambda: site.has_service_account(NAMESPACE))
    try:
        yield NAMESPACE
    finally:
        if not was_there:
            site.cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=true")


@pytest.fixture
def shipped(site: Site, installed: str) -> Iterator[str]:
    """The namespace, with the role as it is shipped before and after the test, and no pods after it."""
    try:
        yield installed
    finally:
        apply(site)
        finalizers = '{"metadata":{"finalizers":null}}'
        for one in site.cluster.kubectl("get", "pods", "-n", installed, "-o", "name").split():
            kubectl(site, "patch", one, "-n", installed, "--type", "merge", "-p", finalizers)
            kubectl(site, "delete", one, "-n", installed, "--grace-period=0", "--force")


def start(site: Site, brokers: Brokers, *, way: str = "access entry", namespace: str = NAMESPACE) -> Broker:
    """A broker whom the cluster knows as one of the two ways would make it known."""
    user, groups = WAYS[way]
    kubeconfig = site.cluster.user(user, groups=groups)
    broker = brokers.prepare(namespace=namespace, kubeconfig=kubeconfig, limits={"shortest_orphan": "1s"})
    broker.arguments = ("--log-level", "debug")
    return broker.start()


@pytest.mark.usefixtures("shipped")
def test_a_strict_cluster_takes_the_files_and_has_nothing_to_say_about_them(site: Site) -> None:
    for name in FILES:
        done = kubectl(site, "apply", "--dry-run=server", "--validate=strict", "-f", str(FOLDER / name))
        assert (done.returncode, done.stderr) == (0, "")
    # Applied again, as everybody does who is not sure.
    assert [line.rpartition(" ")[2] for line in apply(site).splitlines()] == ["unchanged"] * 3


@pytest.mark.usefixtures("shipped")
def test_a_file_with_a_slip_would_be_refused(site: Site) -> None:
    slip = (FOLDER / "role-binding.yaml").read_text().replace("roleRef:", "roleref:")
    done = kubectl(site, "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=slip)
    assert done.returncode != 0
    assert "roleref" in done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_the_role_that_is_shipped_is_enough(site: Site, shipped: str, brokers: Brokers, way: str) -> None:
    client = start(site, brokers, way=way).client()
    checks = list(client.check(TARGET))
    assert [one for one in checks if one.status != podbroker.CheckStatus.PASSED] == []
    assert any(WAYS[way][0] in one.detail for one in checks if one.link == "identity")
    submission = client.submit(
        target=TARGET,
        execution_id="role",
        pod=shell("mkdir -p /airflow/xcom; echo 1 > /airflow/xcom/return.json; echo hi"),
        policies=podbroker.Policies(result=podbroker.ResultSource.SIDECAR),
    )
    assert kubectl(site, "get", "pods", "-n", shipped, "-o", "name").stdout.count("pod/") == 1
    story = follow(client, submission.execution.name)
    assert story.text() == ["hi"]
    assert story.result is not None
    assert story.result.content == b"1\n"
    client.release(submission.execution.name)
    second = client.submit(target=TARGET, execution_id="role-2", pod=shell("sleep 600"))
    client.cancel(second.execution.name, reason="enough")
    assert follow(client, second.execution.name).end.state is podbroker.ExecutionState.CANCELLED


def test_the_role_is_worth_nothing_in_another_namespace(site: Site, shipped: str, brokers: Brokers) -> None:
    with site.namespace() as other:
        assert other.name != shipped
        client = start(site, brokers, namespace=other.name).client()
        refused = [one for one in client.check(TARGET) if one.status in NOT_HELD]
        assert {one.subject for one in refused} == set(VERBS)
        assert all(other.name in one.fix for one in refused)
        with pytest.raises(podbroker.RefusedError) as error:
            client.submit(target=TARGET, execution_id="elsewhere", pod=shell("true"))
        assert error.value.reason == "FORBIDDEN_BY_CLUSTER"
        assert other.pods == []


@pytest.mark.parametrize(
    "manifest",
    [
        pod(container("main", "true"), hostNetwork=True),
        pod(container("main", "true", securityContext={"capabilities": {"add": ["SYS_ADMIN"]}})),
        pod(container("main", "true"), volumes=[{"name": "node", "hostPath": {"path": "/"}}]),
    ],
    ids=["host network", "capability", "host path"],
)
@pytest.mark.usefixtures("shipped")
def test_a_pod_that_reaches_into_its_node_is_refused(site: Site, brokers: Brokers, manifest: dict[str, Any]) -> None:
    client = start(site, brokers).client()
    with pytest.raises(podbroker.RefusedError) as error:
        client.submit(target=TARGET, execution_id="reaching", pod=manifest)
    assert error.value.reason == "ADMISSION_DENIED"
    assert "baseline" in str(error.value)
    assert client.list(TARGET).executions == ()


#: What the role grants, as `podbroker check` names it.
VERBS: Final = tuple(
    f"{verb} {resource}" for rule in ROLE["rules"] for resource in rule["resources"] for verb in rule["verbs"]
)
#: What each verb is for, and nothing else.
NEEDED_FOR: Final = {
    "create pods": {"submit", "validate"},
    "get pods": {"show the manifest", "find again"},
    # Nothing can be followed before the target's pods are known.
    "list pods": {"states", "list", "lines", "result"},
    "watch pods": {"states"},
    "patch pods": {"cancel", "cancel without a node", "release"},
    "delete pods": {"cancel without a node"},
    "get pods/log": {"lines", "result"},
    "list events": {"why it waits"},
    "watch events": {"why it waits"},
    "create leases": {"say who is followed"},
    "list leases": {"end what nobody follows"},
    "patch leases": {"say who is followed"},
    "delete leases": {"forget a replica"},
}
#: Without these every execution runs all the same.
OPTIONAL: Final = {one for one in NEEDED_FOR if one.endswith((" events", " leases"))}


def test_each_verb_of_the_role_has_its_use() -> None:
    assert set(NEEDED_FOR) == set(VERBS)


@pytest.mark.parametrize("missing", VERBS)
def test_without_a_verb_what_it_is_for_breaks_and_the_check_names_it(
    site: Site, shipped: str, brokers: Brokers, missing: str
) -> None:
    prepared = Prepared.by(start(site, brokers))
    apply(site, role=without(missing))
    # Authorization follows the role by a watch of its own.
    wait_for("the role to count", lambda: not allowed(site, missing))
    broker = start(site, brokers)
    client = broker.client(retry_for=5)

    checks = list(client.check(TARGET))
    failed = [one for one in checks if one.status in NOT_HELD]
    assert [(one.link, one.subject) for one in failed] == [("permission", missing)]
    assert failed[0].status == NOT_HELD[missing in OPTIONAL]
    verb, resource = missing.split()
    assert failed[0].fix.startswith(f"add the verb {verb} on {resource} to the role bound in the namespace {shipped}")
    skipped = [one.link for one in checks if one.status == podbroker.CheckStatus.SKIPPED]
    assert skipped == ([] if missing in OPTIONAL else ["create"])

    broken = prepared.broken(client)
    if "the target's pods cannot be watched" in broker.log:
        wait_for("the target to be told as such", lambda: health(client) is podbroker.TargetHealth.UNREACHABLE)
        broken.add("states")
    if "the role does not allow to read events" in broker.log:
        broken.add("why it waits")
    if missing.endswith(" leases"):
        broken |= broken_of_leases(site, broker, client)
    assert broken == NEEDED_FOR[missing]


#: The Lease of a replica that is long gone.
OLD_LEASE: Final = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {
        "name": "podbroker-long-gone",
        "namespace": NAMESPACE,
        "labels": {"podbroker.io/instance": "e2e", "podbroker.io/target": TARGET},
    },
    "spec": {"renewTime": "2020-01-01T00:00:00.000000Z", "leaseDurationSeconds": 100},
}


def broken_of_leases(site: Site, broker: Broker, client: Client) -> set[str]:
    """What of the policy for executions that nobody follows the cluster does not let the broker do."""
    assert kubectl(site, "apply", "-f", "-", stdin=yaml.safe_dump(OLD_LEASE)).returncode == 0
    policies = podbroker.Policies(orphan_after=timedelta(seconds=1))
    submit = partial(client.submit, target=TARGET, pod=shell("echo hi; sleep 600"), policies=policies)
    followed, alone = (submit(execution_id=one).execution.name for one in ("followed", "alone"))
    broken = set()

    def said(*words: str) -> str:
        return wait_for(" or ".join(words), lambda: next((one for one in words if one in broker.log), ""), within=120)

    with client.watch(followed, retry_for=5) as watch:
        collect(watch, Story(), has_line("hi"), within=120)
        if "cannot" in said("told the other replicas", "the other replicas cannot be told"):
            broken.add("say who is followed")
        if "could not" in said("ending what nobody follows", "what is due could not be done"):
            return broken | {"end what nobody follows"}
        end = follow(client, alone).end
        assert end.outcome is not None
        assert end.outcome.failure_class is podbroker.FailureClass.ORPHANED
        if "stays" in said("an old Lease stays", "removing the Lease of a replica that is no more"):
            broken.add("forget a replica")
    gone = kubectl(site, "get", "lease", "podbroker-long-gone", "-n", NAMESPACE).returncode != 0
    assert gone == ("forget a replica" not in broken)
    return broken


def without(missing: str) -> dict[str, Any]:
    """The shipped role without one verb."""
    verb, resource = missing.split()
    rules = [
        {**rule, "verbs": [one for one in rule["verbs"] if (one, [resource]) != (verb, rule["resources"])]}
        for rule in ROLE["rules"]
    ]
    return {**ROLE, "rules": [rule for rule in rules if rule["verbs"]]}


def allowed(site: Site, what: str) -> bool:
    """Whether the cluster lets the broker's group do it."""
    verb, resource = what.split()
    resource, _, subresource = resource.partition("/")
    more = ("--subresource", subresource) if subresource else ()
    asked = kubectl(
        site, "auth", "can-i", verb, resource, *more, "-n", NAMESPACE, "--as", "any", "--as-group", "podbroker-remote"
    )
    return asked.stdout.strip() == "yes"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Executions made while the role was whole, and what can be tried with them."""

    running: str
    waiting: str
    ended: str

    @classmethod
    def by(cls, broker: Broker) -> Prepared:
        """Submits them by a broker that ends afterwards."""
        with podbroker.Client(broker.address) as client:
            submit = client.submit
            running = submit(target=TARGET, execution_id="running", pod=shell("echo hi; sleep 600")).execution.name
            nowhere = shell("true", nodeSelector={"podbroker.test/no": "such-node"})
            waiting = submit(target=TARGET, execution_id="waiting", pod=nowhere).execution.name
            ended = submit(
                target=TARGET,
                execution_id="ended",
                pod=shell("mkdir -p /airflow/xcom; echo 1 > /airflow/xcom/return.json"),
                policies=podbroker.Policies(result=podbroker.ResultSource.SIDECAR),
            ).execution.name
            follow_until(client, running, has_line("hi"))
            follow(client, ended)
        broker.close()
        return cls(running=running, waiting=waiting, ended=ended)

    def broken(self, client: Client) -> set[str]:
        """Tries everything, and returns what the cluster does not let the broker do."""
        wait_for("the watch of the target to have been tried", lambda: health(client) is not STARTING)
        submit = partial(client.submit, target=TARGET, pod=shell("true"))
        trials: dict[str, Callable[[], object]] = {
            "submit": lambda: submit(execution_id="another"),
            "validate": lambda: submit(execution_id="third", validate_only=True),
            "find again": lambda: submit(execution_id="none", must_exist=True),
            "show the manifest": lambda: client.get(self.running, full=True),
            "list": lambda: client.list(TARGET),
            "lines": lambda: tell(client, self.running, lambda it: it.gaps or it.text() == ["hi"]),
            "result": lambda: tell(client, self.ended, lambda it: it.result),
            "release": lambda: client.release(self.ended),
            "cancel": lambda: client.cancel(self.running),
            "cancel without a node": lambda: client.cancel(self.waiting),
        }
        return {name for name, trial in trials.items() if fails(name, trial)}


def tell(client: Client, name: str, until: Callable[[Story], object]) -> None:
    """Follows an execution until it has told something; what the cluster kept back raises."""
    with client.watch(name, retry_for=5) as watch:
        story = collect(watch, Story(), until, within=60)
    for gap in story.gaps:
        assert gap.reason is podbroker.GapReason.REFUSED
        raise podbroker.RefusedError(gap.message, reason="FORBIDDEN_BY_CLUSTER")
    if story.result is not None and story.result.problem:
        raise podbroker.RefusedError(story.result.problem, reason="FORBIDDEN_BY_CLUSTER")


def fails(name: str, trial: Callable[[], object]) -> bool:
    """Whether the cluster does not let the broker do it; any other failure is a failure of the test."""
    try:
        trial()
    except podbroker.NotFoundError:
        # There is none, and the broker could see that.
        if name != "find again":
            raise
        return False
    except podbroker.RefusedError as refused:
        # The cluster's own words, which name verb and resource.
        if refused.reason != "FORBIDDEN_BY_CLUSTER" or not re.search(r'cannot \w+ resource "pods', str(refused)):
            raise
        return True
    except podbroker.UnavailableError:
        # These wait for the target's pods to be known.
        if name not in {"list", "lines", "result"}:
            raise
        return True
    return False


STARTING: Final = podbroker.TargetHealth.STARTING


def health(client: Client) -> podbroker.TargetHealth:
    """The health of the only target."""
    (target,) = client.targets()
    return target.health
