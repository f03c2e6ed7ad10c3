"""The double of AWS Batch runs jobs as pods and tells of them as AWS does; botocore is the client and the judge."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import pytest
from botocore.exceptions import ClientError

from aws.server import Doubles
from aws.state import State
from e2e.aws import Aws
from e2e.batch import ARN, DEFINITION, QUEUE, container
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.batch import Batch
    from e2e.site import Namespace, Site

#: Rules that keep the pods of ended jobs for the test to look at.
KEPT: Final = {"delete_after": None}
#: Runs until it is told to end, and then ends at once.
WAITS: Final = "trap 'exit 1' TERM; while :; do sleep 0.1; done"
LABEL: Final = "batch.amazonaws.com/job-id"


@pytest.fixture
def aws(site: Site, tmp_path: Path) -> Iterator[Aws]:
    """Doubles of the test's own: nothing here needs those that the cluster asks, which one test at a time can use."""
    with Doubles(State(tmp_path)) as doubles:
        yield Aws(site=site, folder=tmp_path, urls=doubles.urls)


def variables(pod: dict[str, Any]) -> dict[str, str]:
    """The environment of the first container."""
    return {one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0]["env"]}


def log(namespace: Namespace, pod: str) -> str:
    found = namespace.site.core.read_namespaced_pod_log(pod, namespace.name, _preload_content=False)
    return str(found.data.decode())


def test_a_job_runs_as_a_pod_and_succeeds(batch: Batch, namespace: Namespace) -> None:
    batch.behave(KEPT)
    batch.register('echo "$GREETING $0 Ref::who"', parameters={"who": "nobody"})
    override = {"name": "main", "args": ["Ref::who"], "env": [{"name": "GREETING", "value": "hello"}]}
    metadata = {"labels": {"example.com/run": "r1"}, "annotations": {"example.com/note": "any words"}}
    job = batch.submit(
        "greet",
        parameters={"who": "world"},
        tags={"owner": "me"},
        eksPropertiesOverride={"podProperties": {"containers": [override], "metadata": metadata}},
    )
    told = batch.ends(job)
    assert told["status"] == "SUCCEEDED"
    assert told["tags"] == {"owner": "me"}
    assert told["jobDefinition"] == f"{ARN}:job-definition/{DEFINITION}:1"
    assert told["jobQueue"] == f"{ARN}:job-queue/{QUEUE}"
    assert told["createdAt"] <= told["startedAt"] <= told["stoppedAt"]
    assert not told["isTerminated"]
    assert not told["isCancelled"]

    pod = namespace.only_pod
    name = pod["metadata"]["name"]
    assert name.startswith("aws-batch.")
    assert pod["metadata"]["labels"][LABEL] == job
    assert pod["metadata"]["labels"]["example.com/run"] == "r1"
    assert {"batch.amazonaws.com/compute-environment-uuid", "batch.amazonaws.com/node-uid"} <= {
        *pod["metadata"]["labels"]
    }
    assert pod["metadata"]["annotations"]["example.com/note"] == "any words"
    assert pod["spec"]["restartPolicy"] == "Never"
    env = variables(pod)
    assert env["AWS_BATCH_JOB_ID"] == job
    assert env["AWS_BATCH_JOB_ATTEMPT"] == "1"
    assert env["AWS_BATCH_JQ_NAME"] == QUEUE
    assert env["AWS_BATCH_CE_NAME"] == "eks"
    assert "AWS_BATCH_JOB_ARRAY_INDEX" not in env
    assert log(namespace, name) == "hello world world\n"

    current = told["eksProperties"]["podProperties"]
    assert current["podName"] == name
    assert current["nodeName"] == pod["spec"]["nodeName"]
    assert current["containers"][0]["exitCode"] == 0
    (attempt,) = told["eksAttempts"]
    assert (attempt["podName"], attempt["podNamespace"]) == (name, namespace.name)
    assert attempt["containers"][0]["name"] == "main"
    assert attempt["containers"][0]["containerID"].startswith("containerd://")


def test_a_job_that_fails_has_its_exit_code_and_nothing_more_is_tried(batch: Batch) -> None:
    told = batch.ends(batch.run("exit 3"))
    assert told["status"] == "FAILED"
    (attempt,) = told["eksAttempts"]
    assert attempt["containers"][0]["exitCode"] == 3
    assert attempt["containers"][0]["reason"] == "Error"
    assert told["eksProperties"]["podProperties"]["containers"][0]["exitCode"] == 3


def test_a_job_whose_init_container_fails_has_never_run(batch: Batch) -> None:
    mounts = [{"name": "words", "mountPath": "/words"}]
    pod = {
        "hostNetwork": False,
        "volumes": [{"name": "words", "emptyDir": {}}],
        "initContainers": [
            container("echo word > /words/one", name="first", volumeMounts=mounts),
            container("exit $(wc -l < /words/one)4", name="second", volumeMounts=mounts),
        ],
        "containers": [container("true")],
    }
    batch.client.register_job_definition(
        jobDefinitionName=DEFINITION, type="container", eksProperties={"podProperties": pod}
    )
    told = batch.ends(batch.submit("never-main"))
    assert told["status"] == "FAILED"
    assert "startedAt" not in told
    first, second = told["eksAttempts"][0]["initContainers"]
    assert (first["exitCode"], second["exitCode"]) == (0, 14)


def test_an_array_has_children_that_know_their_index(batch: Batch, namespace: Namespace) -> None:
    batch.behave(KEPT)
    batch.register('echo "child $AWS_BATCH_JOB_ARRAY_INDEX"; test "$AWS_BATCH_JOB_ARRAY_INDEX" != 3')
    parent = batch.submit("array", arrayProperties={"size": 5})
    told = batch.ends(parent)
    assert told["status"] == "FAILED"
    summary = told["arrayProperties"]["statusSummary"]
    assert (summary["SUCCEEDED"], summary["FAILED"]) == (4, 1)

    children = batch.client.describe_jobs(jobs=[f"{parent}:{index}" for index in range(5)])["jobs"]
    assert [one["arrayProperties"]["index"] for one in children] == [0, 1, 2, 3, 4]
    assert [one["status"] for one in children] == ["SUCCEEDED"] * 3 + ["FAILED", "SUCCEEDED"]
    pods = {one["metadata"]["name"]: one for one in namespace.pods}
    for index, child in enumerate(children):
        name = child["eksProperties"]["podProperties"]["podName"]
        env = variables(pods[name])
        assert env["AWS_BATCH_JOB_ID"] == f"{parent}:{index}"
        assert env["AWS_BATCH_JOB_ARRAY_INDEX"] == str(index)
        assert pods[name]["metadata"]["labels"][LABEL] == f"{parent}.{index}"
        assert log(namespace, name) == f"child {index}\n"
    failed = batch.client.list_jobs(arrayJobId=parent, jobStatus="FAILED")["jobSummaryList"]
    assert [one["jobId"] for one in failed] == [f"{parent}:3"]
    # Children are no jobs of their own to a filter.
    found = batch.client.list_jobs(jobQueue=QUEUE, filters=[{"name": "JOB_NAME", "values": ["array"]}])
    assert [one["jobId"] for one in found["jobSummaryList"]] == [parent]


def test_a_job_is_tried_again_as_its_strategy_says(batch: Batch) -> None:
    batch.register('exit "$((2 + AWS_BATCH_JOB_ATTEMPT))"')
    rules = [{"onExitCode": "4", "action": "EXIT"}, {"onReason": "Error", "action": "RETRY"}]
    told = batch.ends(batch.submit("again", retryStrategy={"attempts": 5, "evaluateOnExit": rules}))
    assert told["status"] == "FAILED"
    assert [one["containers"][0]["exitCode"] for one in told["eksAttempts"]] == [3, 4]
    assert len({one["podName"] for one in told["eksAttempts"]}) == 2
    batch.register('test "$AWS_BATCH_JOB_ATTEMPT" = 2')
    assert batch.ends(batch.submit("second", retryStrategy={"attempts": 2}))["status"] == "SUCCEEDED"


def test_a_job_whose_node_goes_away_has_a_second_attempt(batch: Batch) -> None:
    batch.behave({"spot_loss": {"attempts": [1], "after": 0.2}})
    batch.register('test "$AWS_BATCH_JOB_ATTEMPT" = 2 || sleep 100')
    told = batch.ends(batch.submit("spot", retryStrategy={"attempts": 2}))
    assert told["status"] == "SUCCEEDED"
    lost, second = told["eksAttempts"]
    assert lost["statusReason"].startswith("Host EC2")
    assert "statusReason" not in second
    assert batch.ends(batch.submit("once"))["statusReason"].startswith("Host EC2")


def test_terminating_a_running_job_gives_it_the_grace_of_its_pod(batch: Batch, namespace: Namespace) -> None:
    job = batch.run("trap 'echo ending; exit 0' TERM; echo up; while :; do sleep 0.1; done")
    told = batch.reaches(job, "RUNNING")
    name = told["eksProperties"]["podProperties"]["podName"]
    wait_for("its first words", lambda: "up" in log(namespace, name))
    batch.client.cancel_job(jobId=job, reason="too late for that")
    assert not batch.describe(job)["isCancelled"]
    batch.client.terminate_job(jobId=job, reason="the user wants it")
    assert batch.describe(job)["isTerminated"]
    told = batch.ends(job)
    assert (told["status"], told["statusReason"]) == ("FAILED", "the user wants it")
    assert told["eksAttempts"][0]["containers"][0]["exitCode"] == 0
    # Again does no harm.
    batch.client.terminate_job(jobId=job, reason="other words")
    assert batch.describe(job)["statusReason"] == "the user wants it"


@pytest.mark.parametrize("state", ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING"])
def test_a_job_is_held_in_a_state_and_terminated_there(batch: Batch, namespace: Namespace, state: str) -> None:
    reason = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"
    batch.behave({"name": "held-*", "hold": {"state": state, "reason": reason}})
    batch.register("sleep 100")
    # Only what waits for something comes through PENDING.
    first = batch.submit("first")
    batch.reaches(first, "RUNNING")
    more = {"dependsOn": [{"jobId": first}]} if state == "PENDING" else {}
    job = batch.submit("held-1", **more)
    told = batch.reaches(job, state)
    assert told["statusReason"] == reason
    batch.client.terminate_job(jobId=job, reason="enough")
    told = batch.ends(job)
    assert (told["status"], told["statusReason"], told["isTerminated"]) == ("FAILED", "enough", True)
    assert len(told["eksAttempts"]) == (1 if state == "STARTING" else 0)
    assert "startedAt" not in told
    # The other one still runs.
    assert [pod["metadata"]["labels"][LABEL] for pod in namespace.pods] == [first]


def test_what_was_held_goes_on_when_it_is_let_go(batch: Batch) -> None:
    batch.register()
    for state in ("RUNNABLE", "STARTING"):
        batch.behave({"hold": {"state": state}})
        job = batch.submit("held")
        batch.reaches(job, state)
        batch.behave()
        assert batch.ends(job)["status"] == "SUCCEEDED"


def test_somebody_else_terminates_a_job(batch: Batch) -> None:
    batch.behave({"name": "by-rule", "terminate": {"state": "RUNNING", "reason": "by a rule"}})
    batch.register(WAITS)
    by_rule, by_hand = batch.submit("by-rule"), batch.submit("by-hand")
    batch.reaches(by_hand, "RUNNING")
    batch.terminate(by_hand, "by hand")
    assert batch.ends(by_rule)["statusReason"] == "by a rule"
    assert batch.ends(by_hand)["statusReason"] == "by hand"


def test_a_job_that_takes_too_long_is_ended_and_not_tried_again(batch: Batch) -> None:
    batch.behave({"timeout_factor": 0.01})
    batch.register("trap 'exit 9' TERM; while :; do sleep 0.1; done")
    told = batch.ends(batch.submit("slow", timeout={"attemptDurationSeconds": 60}, retryStrategy={"attempts": 3}))
    assert (told["status"], told["statusReason"]) == ("FAILED", "Job attempt duration exceeded timeout")
    assert [one["containers"][0]["exitCode"] for one in told["eksAttempts"]] == [9]
    assert not told["isTerminated"]


def test_a_pod_is_deleted_when_its_time_has_come(batch: Batch, namespace: Namespace) -> None:
    batch.behave({"tags": {"gone": "now"}, "delete_after": 0}, KEPT)
    batch.register()
    at_once, kept = batch.submit("at-once", tags={"gone": "now"}), batch.submit("kept")
    batch.ends(at_once)
    told = batch.ends(kept)
    wait_for("the pod to be gone", lambda: len(namespace.pods) == 1)
    assert namespace.pod_names == [told["eksProperties"]["podProperties"]["podName"]]


def test_a_pod_that_somebody_deletes_is_an_attempt_that_failed(batch: Batch, namespace: Namespace) -> None:
    job = batch.run("sleep 100")
    batch.reaches(job, "RUNNING")
    namespace.delete_pod(namespace.pod_names[0], grace=0)
    told = batch.ends(job)
    assert (told["status"], told["statusReason"], told["isTerminated"]) == ("FAILED", "Pod was deleted", False)


def test_jobs_wait_for_others_and_fail_with_them(batch: Batch) -> None:
    batch.register("false", name="fails")
    batch.register()
    first = batch.submit("first")
    second = batch.submit("second", dependsOn=[{"jobId": first}])
    assert batch.ends(second)["startedAt"] >= batch.describe(first)["stoppedAt"]
    broken = batch.submit("broken", jobDefinition="fails")
    after = batch.submit("after", dependsOn=[{"jobId": broken}])
    last = batch.submit("last", dependsOn=[{"jobId": after, "type": "SEQUENTIAL"}])
    assert batch.ends(last)["statusReason"] == "Dependent Job failed"
    assert batch.describe(after)["status"] == "FAILED"


def test_children_wait_for_each_other_and_for_those_of_another_array(batch: Batch) -> None:
    batch.register()
    first = batch.submit("first", arrayProperties={"size": 3}, dependsOn=[{"type": "SEQUENTIAL"}])
    second = batch.submit("second", arrayProperties={"size": 3}, dependsOn=[{"jobId": first, "type": "N_TO_N"}])
    assert batch.ends(second)["status"] == "SUCCEEDED"
    told = {
        one["jobId"]: one
        for parent in (first, second)
        for one in batch.client.describe_jobs(jobs=[f"{parent}:{index}" for index in range(3)])["jobs"]
    }
    for index in range(3):
        assert told[f"{second}:{index}"]["startedAt"] >= told[f"{first}:{index}"]["stoppedAt"]
    for index in (1, 2):
        assert told[f"{first}:{index}"]["startedAt"] >= told[f"{first}:{index - 1}"]["stoppedAt"]


def test_an_environment_takes_so_many_pods_and_no_more(batch: Batch, namespace: Namespace) -> None:
    batch.environment["max_pods"] = 1
    batch.aws.apply()
    batch.register(WAITS)
    first = batch.submit("first")
    batch.register()
    second = batch.submit("second")
    batch.reaches(first, "RUNNING")
    assert batch.describe(second)["status"] == "RUNNABLE"
    assert len(namespace.pods) == 1
    batch.client.terminate_job(jobId=first, reason="make room")
    assert batch.ends(second)["status"] == "SUCCEEDED"


def test_an_array_is_terminated_with_its_children(batch: Batch, namespace: Namespace) -> None:
    batch.register(WAITS)
    parent = batch.submit("array", arrayProperties={"size": 3})
    wait_for("all children to run", lambda: batch.describe(parent)["arrayProperties"]["statusSummary"]["RUNNING"] == 3)
    assert batch.describe(parent)["status"] == "PENDING"
    batch.client.terminate_job(jobId=parent, reason="all of it")
    told = batch.ends(parent)
    assert (told["status"], told["statusReason"], told["isTerminated"]) == ("FAILED", "all of it", True)
    wait_for("the pods to be gone", lambda: not namespace.pods)


def test_what_is_not_there_is_told_apart(batch: Batch) -> None:
    batch.register()
    assert batch.client.describe_jobs(jobs=["no-such-job"])["jobs"] == []
    for more in ({"jobQueue": "other"}, {"jobDefinition": "other"}, {"dependsOn": [{"jobId": "other"}]}):
        with pytest.raises(ClientError, match="does not exist"):
            batch.submit("n", **more)
    for state in ({"state": "DISABLED"}, {"status": "INVALID"}):
        before = dict(batch.queue)
        batch.queue.update(state)
        batch.aws.apply()
        with pytest.raises(ClientError, match="not enabled and valid"):
            batch.submit("n")
        batch.queue.clear()
        batch.queue.update(before)
    assert batch.jobs() == []


def test_definitions_have_revisions(batch: Batch) -> None:
    name = f"d-{secrets.token_hex(4)}"
    first, second = batch.register(name=name), batch.register("false", name=name)
    assert (first[-2:], second[-2:]) == (":1", ":2")
    found = batch.client.describe_job_definitions(jobDefinitionName=name, status="ACTIVE")["jobDefinitions"]
    assert [one["revision"] for one in found] == [2, 1]
    batch.client.deregister_job_definition(jobDefinition=second)
    assert batch.describe(batch.submit("latest", jobDefinition=name))["jobDefinition"] == first
    with pytest.raises(ClientError, match="not active"):
        batch.submit("gone", jobDefinition=f"{name}:2")
    (told,) = batch.client.describe_job_definitions(jobDefinitions=[f"{name}:2"])["jobDefinitions"]
    assert told["status"] == "INACTIVE"
    batch.client.tag_resource(resourceArn=first, tags={"digest": "abc"})
    (told,) = batch.client.describe_job_definitions(jobDefinitions=[first])["jobDefinitions"]
    assert told["tags"] == {"digest": "abc"}
