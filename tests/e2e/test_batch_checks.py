"""Every link of a check that is AWS Batch's own, broken once: what is told of it, and how to mend it.

The target is on EKS with the shipped role of the namespace, so what comes before these links is the real chain.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import pytest
from k8s.shipped import load
from kubernetes import client as kubernetes

from cluster.identity import REGION, USER
from e2e.aws import TARGET
from e2e.batch import DEFINITION, ENVIRONMENT, QUEUE, STATEMENTS, container
from e2e.waiting import wait_for
from podbroker import Check, CheckStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.aws import Aws
    from e2e.batch import Batch
    from e2e.broker import Brokers
    from e2e.site import Namespace

#: The links of AWS Batch, as they are walked.
LINKS: Final = [
    ("batch-identity", ""),
    ("batch-queue", QUEUE),
    ("batch-compute-environment", ENVIRONMENT),
    ("batch-service-role", ENVIRONMENT),
    ("batch-definition", DEFINITION),
    ("batch-jobs", ""),
    ("batch-submit", QUEUE),
]


class Chain:
    """What a case may break; it holds at first."""

    def __init__(self, aws: Aws, batch: Batch, namespace: Namespace) -> None:
        self.aws, self.batch, self.namespace = aws, batch, namespace
        batch.register()
        self.role = load("batch/role.yaml")
        self.target = aws.target(namespace=namespace.name, batch={"queue": QUEUE, "job_definition": DEFINITION})

    def allow_only(self, *statements: dict[str, Any]) -> None:
        """The target's role may find its cluster, and these."""
        policy = self.aws.role["policy"]
        policy["Statement"] = [*(one for one in policy["Statement"] if one not in STATEMENTS), *statements]

    def check(self, brokers: Brokers) -> list[Check]:
        """What a broker says of the chain as it is now."""
        self._bind()
        self.aws.apply()
        broker = brokers.prepare(namespace=self.namespace, targets=[self.target], aws={"credentials": "irsa"})
        broker.environment |= self.aws.environment()
        return list(broker.start().client().check(TARGET))

    def _bind(self) -> None:
        """Gives the shipped role to whom the cluster knows the broker as."""
        api = kubernetes.RbacAuthorizationV1Api(self.namespace.site.api)
        binding = load("batch/role-binding.yaml")
        for one, create in (
            (self.role, api.create_namespaced_role),
            (binding, api.create_namespaced_role_binding),
        ):
            body = copy.deepcopy(one)
            body["metadata"]["namespace"] = self.namespace.name
            create(self.namespace.name, body)
        review = {
            "spec": {
                "user": USER,
                "resourceAttributes": {"namespace": self.namespace.name, "verb": "list", "resource": "configmaps"},
            }
        }
        judge = kubernetes.AuthorizationV1Api(self.namespace.site.api)
        wait_for("the binding to count", lambda: judge.create_subject_access_review(review).status.allowed)


def of(checks: list[Check], link: str, subject: str | None = None) -> Check:
    """The check of one link."""
    (found,) = [one for one in checks if one.link == link and subject in (None, one.subject)]
    return found


def not_held(checks: list[Check]) -> list[tuple[str, str]]:
    """Links that are broken, or that are only warned of."""
    held = (CheckStatus.PASSED, CheckStatus.SKIPPED)
    return [(one.link, one.subject) for one in checks if one.status not in held]


@pytest.fixture
def chain(aws: Aws, batch: Batch, namespace: Namespace) -> Chain:
    return Chain(aws, batch, namespace)


def test_a_chain_that_holds_is_walked_to_a_submit_that_makes_no_job(chain: Chain, brokers: Brokers) -> None:
    checks = chain.check(brokers)
    assert not not_held(checks)
    assert all(one.status is CheckStatus.PASSED for one in checks)
    assert [(one.link, one.subject) for one in checks][-len(LINKS) :] == LINKS
    assert of(checks, "permission", "get pods/log").status is CheckStatus.PASSED
    assert "AstroRemoteKPO" in of(checks, "batch-identity").detail
    assert "AWSServiceRoleForBatch" in of(checks, "batch-service-role").detail
    assert of(checks, "batch-definition").detail == f"{DEFINITION}:1 runs main"
    # The submit was refused for its mistake: nothing was made, and nothing had to be ended.
    assert chain.batch.jobs() == []
    assert [one["outcome"] for one in chain.aws.calls("SubmitJob")] == ["ClientException"]
    assert not chain.aws.calls("TerminateJob")


def disabled_queue(chain: Chain) -> None:
    chain.batch.queue["state"] = "DISABLED"


def invalid_queue(chain: Chain) -> None:
    chain.batch.queue.update(status="INVALID", statusReason="its compute environment is gone")


def no_such_queue(chain: Chain) -> None:
    chain.target["batch"]["queue"] = "elsewhere"


def invalid_environment(chain: Chain) -> None:
    chain.batch.environment.update(status="INVALID", statusReason="CLIENT_ERROR - Unable to validate Kubernetes")


def disabled_environment(chain: Chain) -> None:
    chain.batch.environment["state"] = "DISABLED"


def another_namespace(chain: Chain) -> None:
    chain.batch.environment["namespace"] = "somewhere-else"


def another_cluster(chain: Chain) -> None:
    chain.batch.environment["cluster"] = "another-cluster"


def environment_that_is_gone(chain: Chain) -> None:
    del chain.aws.config["batch"]["compute_environments"][f"{REGION}/{ENVIRONMENT}"]


def no_access_entry(chain: Chain) -> None:
    chain.batch.environment["access_entry"] = {"desiredState": "ENABLED", "status": "INACTIVE"}


def no_definition(chain: Chain) -> None:
    chain.target["batch"]["job_definition"] = "never-registered"


def inactive_definition(chain: Chain) -> None:
    chain.target["batch"]["job_definition"] = f"{DEFINITION}:1"
    chain.batch.client.deregister_job_definition(jobDefinition=f"{DEFINITION}:1")


def definition_of_another_namespace(chain: Chain) -> None:
    pod = {"hostNetwork": False, "containers": [container("true")], "metadata": {"namespace": "somewhere-else"}}
    chain.batch.client.register_job_definition(
        jobDefinitionName=DEFINITION, type="container", eksProperties={"podProperties": pod}
    )


def definition_on_the_network_of_its_node(chain: Chain) -> None:
    pod = {"containers": [container("true")]}
    chain.batch.client.register_job_definition(
        jobDefinitionName=DEFINITION, type="container", eksProperties={"podProperties": pod}
    )


def nothing_allowed(chain: Chain) -> None:
    chain.allow_only()


def looks_only(chain: Chain) -> None:
    chain.allow_only(STATEMENTS[0])


def another_instance(chain: Chain) -> None:
    """The policy of the page, for a broker of another name."""
    statements = copy.deepcopy(STATEMENTS)
    tagged = {"StringEquals": {"aws:RequestTag/podbroker.io/instance": "prod"}}
    chain.allow_only(statements[0], {**statements[1], "Condition": tagged}, statements[2])


def throttled(chain: Chain) -> None:
    chain.batch.throttle(action="ListJobs")


def no_access_to_logs(chain: Chain) -> None:
    chain.role["rules"] = [rule for rule in chain.role["rules"] if rule["resources"] != ["pods/log"]]


#: What is broken, the links where it shows, what is said of the first one, and the fix.
Case = tuple["Callable[[Chain], None]", list[str], str, str]
CASES: Final[list[Case]] = [
    (disabled_queue, ["batch-queue"], "disabled", "enable the queue"),
    (invalid_queue, ["batch-queue"], "INVALID (its compute environment is gone)", "mend what the reason names"),
    (no_such_queue, ["batch-queue", "batch-jobs"], "there is no queue elsewhere", "check batch.queue"),
    (
        *(invalid_environment, ["batch-compute-environment"]),
        *("INVALID (CLIENT_ERROR - Unable to validate Kubernetes)", "the RBAC that AWS Batch needs in the cluster"),
    ),
    (disabled_environment, ["batch-compute-environment"], "disabled", "enable it"),
    (
        *(another_namespace, ["batch-compute-environment"]),
        *("runs jobs in the namespace somewhere-else", "set the target's namespace to somewhere-else"),
    ),
    (
        *(another_cluster, ["batch-compute-environment"]),
        *("cluster/another-cluster", "use a queue of the target's cluster"),
    ),
    (
        *(environment_that_is_gone, ["batch-compute-environment"]),
        *("there is no compute environment", "take it out of the queue's order"),
    ),
    (no_access_entry, ["batch-service-role"], "no access entry in the cluster", "accessEntry.desiredState to ENABLED"),
    (no_definition, ["batch-definition"], "no active job definition never-registered", "register it, or correct"),
    (inactive_definition, ["batch-definition"], "is not active", "register it anew"),
    (
        *(definition_of_another_namespace, ["batch-definition"]),
        *("into the namespace somewhere-else", "register it without metadata.namespace"),
    ),
    (
        *(definition_on_the_network_of_its_node, ["batch-definition"]),
        *("on the network of their node", "hostNetwork: false"),
    ),
    (
        *(nothing_allowed, ["batch-queue", "batch-definition", "batch-jobs"]),
        *("not authorized to perform: batch:DescribeJobQueues", "allow batch:DescribeJobQueues"),
    ),
    (looks_only, ["batch-submit"], "not authorized to perform: batch:SubmitJob", "allow batch:SubmitJob on the queue"),
    (another_instance, ["batch-submit"], "batch:SubmitJob", "with the tag podbroker.io/instance=e2e"),
    (throttled, ["batch-jobs"], "no room for ListJobs", "wait: the account makes more calls"),
]


@pytest.mark.parametrize("case", CASES, ids=[case.__name__ for case, *_ in CASES])
def test_a_broken_link_of_batch_is_named_with_its_fix(chain: Chain, brokers: Brokers, case: Case) -> None:
    broken, links, said, fix = case
    broken(chain)
    checks = chain.check(brokers)
    assert [link for link, _ in not_held(checks)] == links
    found = of(checks, links[0])
    assert said in found.detail
    assert fix in found.fix
    # What stands before AWS Batch holds, and no job was made by looking.
    assert of(checks, "create").status is CheckStatus.PASSED
    assert chain.batch.jobs() == []


def test_a_broker_without_access_to_the_lines_of_pods_is_told(chain: Chain, brokers: Brokers) -> None:
    no_access_to_logs(chain)
    checks = chain.check(brokers)
    assert not_held(checks) == [("permission", "get pods/log")]
    assert "add the verb get on pods/log" in of(checks, "permission", "get pods/log").fix


def test_where_definitions_are_registered_none_is_asked_for(chain: Chain, brokers: Brokers) -> None:
    chain.target["batch"] = {"queue": QUEUE, "register_definitions": True}
    checks = chain.check(brokers)
    assert not not_held(checks)
    assert "batch:RegisterJobDefinition" in of(checks, "batch-definition").detail
    assert [one.link for one in checks][-1] == "batch-jobs"
