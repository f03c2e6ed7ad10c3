"""Executions that are Jobs of the cluster: its own controller makes the pods, and the broker tells of them as one."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import pytest
from kubernetes import client as kubernetes

import podbroker
from e2e.broker import TARGET
from e2e.following import Story, check_lines, collect, ended, follow, follow_until
from e2e.manifests import UNTIL_TOLD, container, shell
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.broker import Broker, Brokers
    from e2e.manifests import Manifest
    from e2e.site import Namespace

QUEUE: Final = "kueue.x-k8s.io/queue-name"


@pytest.fixture
def broker(brokers: Brokers, namespace: Namespace) -> Broker:
    return prepared(brokers, namespace).start()


def prepared(brokers: Brokers, namespace: Namespace) -> Broker:
    """A broker whose one target runs Jobs; not started yet."""
    broker = brokers.prepare(namespace=namespace)
    (target,) = broker.config["targets"]
    target["executions"] = "jobs"
    return broker


def job(script: str, *, metadata: Manifest | None = None, **spec: Any) -> Manifest:  # noqa: ANN401  fields of a Job's spec
    """A Job whose pods have one container, `main`, and 5 seconds to end; it is not repeated."""
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container("main", script)]}
    spec = {"backoffLimit": 0, "template": {"spec": pod}, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata or {}, "spec": spec}


def submit(client: podbroker.Client, manifest: Manifest, execution_id: str = "job", **more: Any) -> str:  # noqa: ANN401
    return client.submit(target=TARGET, execution_id=execution_id, job=manifest, **more).execution.name


def jobs(namespace: Namespace) -> list[dict[str, Any]]:
    """The Jobs, as the API server tells them."""
    api = kubernetes.BatchV1Api(namespace.site.api)
    answer = api.list_namespaced_job(namespace.name, _preload_content=False)
    items: list[dict[str, Any]] = json.loads(answer.data)["items"]
    return items


def change(namespace: Namespace, body: Manifest) -> None:
    """Changes the only Job, as somebody else."""
    (found,) = jobs(namespace)
    kubernetes.BatchV1Api(namespace.site.api).patch_namespaced_job(found["metadata"]["name"], namespace.name, body)


def lines(story: Story) -> dict[str, list[str]]:
    """The lines by container."""
    return {name: story.text(name) for name in story.lines}


def reasons(story: Story) -> list[str]:
    """Why the execution stood where it did."""
    return [event.execution.state_reason for event in story.events if isinstance(event, podbroker.StateChanged)]


def has_said(text: str) -> Callable[[Story], bool]:
    """A condition: some container has printed the line."""
    return lambda story: any(text in said for said in lines(story).values())


def test_a_job_runs_and_its_lines_come(broker: Broker, namespace: Namespace) -> None:
    client = broker.client()
    name = submit(client, job("for i in 1 2 3; do echo line $i; sleep 0.2; done", metadata={"name": "mine"}))
    story = follow(client, name)
    ((shown, text),) = lines(story).items()
    assert shown.endswith("/main")
    assert text == ["line 1", "line 2", "line 3"]
    assert not story.gaps
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED
    assert story.outcome.exit_code == 0
    (attempt,) = story.end.attempts
    (found,) = jobs(namespace)
    assert (attempt.job_name, attempt.batch_job_id) == (found["metadata"]["name"], "")
    assert attempt.pod_name == f"{attempt.job_name}-{shown.partition('/')[0]}"
    whole = client.get(name, full=True)
    assert whole.job_json is not None
    assert json.loads(whole.job_json)["status"]["succeeded"] == 1


def test_a_job_that_fails_tells_its_exit_code(broker: Broker) -> None:
    client = broker.client()
    story = follow(client, submit(client, job("echo bad; exit 3")))
    assert [*lines(story).values()] == [["bad"]]
    assert story.end.state is podbroker.ExecutionState.FAILED
    assert story.outcome.failure_class is podbroker.FailureClass.APPLICATION
    assert story.outcome.exit_code == 3
    assert "failed with exit code 3" in story.outcome.message


def test_a_pod_that_is_made_again_tells_its_own_lines(broker: Broker, namespace: Namespace) -> None:
    """The first pod leaves the file behind that lets the second one succeed."""
    client = broker.client()
    script = "if [ -e /shared/again ]; then echo second; else touch /shared/again; echo first; exit 3; fi"
    folder = f"/tmp/{namespace.name}"
    manifest = job(script, backoffLimit=2)
    pod = manifest["spec"]["template"]["spec"]
    pod["containers"][0]["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]
    pod["volumes"] = [{"name": "shared", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}]
    story = follow(client, submit(client, manifest))
    assert sorted(lines(story).values()) == [["first"], ["second"]]
    assert not story.gaps
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED
    assert story.outcome.exit_code == 0
    assert len(story.end.attempts) == 1
    assert sorted(each.exit_code or 0 for each in story.outcome.containers) == [0, 3]


def test_pods_beside_each_other_are_told_apart(broker: Broker) -> None:
    client = broker.client()
    story = follow(client, submit(client, job("hostname", parallelism=3, completions=3)))
    found = lines(story)
    assert len(found) == 3
    for name, said in found.items():
        assert len(said) == 1
        assert said[0].endswith("-" + name.partition("/")[0]), "each line is that of its own pod"
    assert not story.gaps
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED


def test_pods_of_an_indexed_job_have_their_index(broker: Broker) -> None:
    client = broker.client()
    manifest = job("echo index $JOB_COMPLETION_INDEX", parallelism=2, completions=4, completionMode="Indexed")
    story = follow(client, submit(client, manifest))
    assert sorted((name.partition("-")[0], said) for name, said in lines(story).items()) == [
        (str(index), [f"index {index}"]) for index in range(4)
    ]
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED


def test_a_cancelled_job_ends_with_the_grace_of_its_pods(broker: Broker, namespace: Namespace) -> None:
    client = broker.client()
    name = submit(client, job(UNTIL_TOLD))
    follow_until(client, name, has_said("ready"))
    client.cancel(name, reason="not needed")
    story = follow(client, name)
    assert [*lines(story).values()] == [["ready", "bye"]]
    assert story.end.state is podbroker.ExecutionState.CANCELLED
    assert story.outcome.failure_class is podbroker.FailureClass.CANCELLED_BY_CALLER
    assert "not needed" in story.outcome.message
    (found,) = jobs(namespace)
    assert "not needed" in found["metadata"]["annotations"]["podbroker.io/ended-because"]


def test_a_run_deadline_is_the_jobs(broker: Broker) -> None:
    client = broker.client()
    policies = podbroker.Policies(run_deadline=timedelta(seconds=2))
    story = follow(client, submit(client, job(UNTIL_TOLD), policies=policies))
    assert story.end.state is podbroker.ExecutionState.FAILED
    assert story.outcome.failure_class is podbroker.FailureClass.DEADLINE


def test_a_job_that_somebody_deletes_is_told_as_such(broker: Broker, namespace: Namespace) -> None:
    client = broker.client()
    name = submit(client, job(UNTIL_TOLD))
    follow_until(client, name, has_said("ready"))
    (found,) = jobs(namespace)
    api = kubernetes.BatchV1Api(namespace.site.api)
    api.delete_namespaced_job(found["metadata"]["name"], namespace.name, propagation_policy="Foreground")
    story = follow(client, name)
    assert story.end.state is podbroker.ExecutionState.FAILED
    assert story.outcome.failure_class is podbroker.FailureClass.POD_DELETED


def test_a_broker_that_is_killed_loses_no_line_and_makes_no_second_job(brokers: Brokers, namespace: Namespace) -> None:
    broker = prepared(brokers, namespace).start()
    expected = [f"line {n}".encode() for n in range(60)]
    client = broker.client()
    manifest = job("for i in $(seq 0 59); do echo line $i; sleep 0.1; done")
    name = submit(client, manifest)
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_said("line 9"), within=120)
        broker.kill()
        broker.start()
        assert submit(client, manifest) == name
        collect(watch, story, ended, within=120)
    (shown,) = story.lines
    check_lines(story.content(shown), expected, story.gaps)
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED
    assert len(jobs(namespace)) == 1


def test_a_released_job_leaves_nothing_in_the_cluster(broker: Broker, namespace: Namespace) -> None:
    client = broker.client()
    # Nothing is deleted before a late create would meet it.
    soon = datetime.now(tz=timezone.utc) + timedelta(seconds=2)
    name = submit(client, job("echo done"), submit_before=soon)
    story = follow(client, name)
    client.release(story.end.name)
    wait_for("the Job and its pods to go", lambda: not jobs(namespace) and not namespace.pods, within=180)


def test_a_suspended_job_waits_until_somebody_resumes_it(broker: Broker, namespace: Namespace) -> None:
    client = broker.client()
    name = submit(client, job("echo runs", metadata={"labels": {QUEUE: "team-a"}}, suspend=True))
    waiting = follow_until(
        client, name, lambda story: any("suspended by Kueue, queue team-a" in each for each in reasons(story))
    )
    assert waiting.states[-1] == "QUEUED"
    assert not namespace.pods
    change(namespace, {"spec": {"suspend": False}})
    story = follow(client, name)
    assert [*lines(story).values()] == [["runs"]]
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED


def test_a_suspended_job_can_be_cancelled(broker: Broker, namespace: Namespace) -> None:
    client = broker.client()
    name = submit(client, job("echo runs", suspend=True))
    wait_for("the Job to be made", lambda: jobs(namespace))
    client.cancel(name, reason="not needed")
    story = follow(client, name)
    assert story.end.state is podbroker.ExecutionState.CANCELLED
    assert not namespace.pods


def test_what_a_job_cannot_be_is_refused_with_every_field(broker: Broker, namespace: Namespace) -> None:
    client = broker.client()
    wrong = job("true", selector={}, parallelism=0, manualSelector=True)
    with pytest.raises(podbroker.InvalidSpecError) as refused:
        submit(client, wrong)
    fields = {violation.field for violation in refused.value.field_violations}
    assert fields == {"spec.selector", "spec.manualSelector", "spec.parallelism"}
    with pytest.raises(podbroker.InvalidSpecError) as refused:
        submit(client, job("true", unheard=1))
    assert [violation.field for violation in refused.value.field_violations] == ["spec.unheard"]
    with pytest.raises(podbroker.InvalidRequestError, match="runs Jobs"):
        client.submit(target=TARGET, execution_id="pod", pod=shell("true"))
    assert not jobs(namespace)


def test_the_chain_to_a_job_is_checked(broker: Broker) -> None:
    checks = [*broker.client().check(TARGET)]
    permissions = {check.subject for check in checks if check.link == "permission"}
    assert {f"{verb} jobs" for verb in ("create", "get", "list", "watch", "patch", "delete")} <= permissions
    assert [check.status for check in checks if check.link == "job"] == [podbroker.CheckStatus.PASSED]
