"""Executions that are jobs of AWS Batch on EKS: the double makes real pods, told of as those of any other target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

import podbroker
from cluster.identity import REGION, ROLE
from e2e.archiving import soon
from e2e.batch import DEFINITION, QUEUE
from e2e.broker import TARGET
from e2e.following import check_lines, ended, follow, follow_until, has_line
from e2e.manifests import shell
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from e2e.aws import Aws
    from e2e.batch import Batch
    from e2e.broker import Broker, Brokers
    from e2e.following import Story
    from e2e.site import Namespace

#: Runs until it is told to end, says that, and ends with 7.
WAITS: Final = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.1; done"


def prepared(aws: Aws, brokers: Brokers, namespace: Namespace, **more: Any) -> Broker:  # noqa: ANN401  of the batch table
    """A broker whose one target has the queue; not started yet."""
    broker = brokers.prepare(namespace=namespace, aws={"credentials": "irsa"})
    (target,) = broker.config["targets"]
    table = {"queue": QUEUE, "job_definition": DEFINITION, "settle": "3s", **more}
    target |= {"region": REGION, "role_arn": ROLE, "batch": table}
    broker.environment |= aws.environment()
    return broker


@pytest.fixture
def broker(aws: Aws, batch: Batch, brokers: Brokers, namespace: Namespace) -> Broker:
    assert batch
    return prepared(aws, brokers, namespace).start()


def submit(client: podbroker.Client, execution_id: str, **more: Any) -> str:  # noqa: ANN401  fields of the workload
    """Submits a job from the definition; see `Client.submit`."""
    work = podbroker.BatchWorkload(**{"job_definition": DEFINITION, **more})
    return client.submit(target=TARGET, execution_id=execution_id, batch=work).execution.name


def records(namespace: Namespace) -> list[str]:
    """The names of the records that are left."""
    found = namespace.site.core.list_namespaced_config_map(namespace.name, label_selector="podbroker.io/instance=e2e")
    return [one.metadata.name for one in found.items]


def run(batch: Batch, broker: Broker, script: str, **more: Any) -> Story:  # noqa: ANN401  fields of the workload
    """Runs a script as a job and follows it to its end."""
    batch.register(script)
    client = broker.client()
    return follow(client, submit(client, "job", **more))


def test_a_job_runs_and_its_lines_come(batch: Batch, broker: Broker) -> None:
    story = run(batch, broker, "for i in 1 2 3; do echo line $i; sleep 0.2; done")
    assert story.text() == ["line 1", "line 2", "line 3"]
    assert not story.gaps
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED
    assert story.outcome.exit_code == 0
    (job,) = batch.jobs()
    (attempt,) = story.end.attempts
    assert attempt.batch_job_id == job["id"]
    assert attempt.pod_name.startswith("aws-batch.")


def test_a_job_that_fails_tells_its_exit_code(batch: Batch, broker: Broker) -> None:
    story = run(batch, broker, "echo bad; exit 3")
    assert story.text() == ["bad"]
    assert story.end.state is podbroker.ExecutionState.FAILED
    assert story.outcome.failure_class is podbroker.FailureClass.APPLICATION
    assert story.outcome.exit_code == 3


def test_a_pod_is_translated_to_a_job(batch: Batch, broker: Broker) -> None:
    batch.register("echo of the definition")
    client = broker.client()
    pod = shell("echo of the pod")
    # How long a program has after the signal is for the definition to say.
    del pod["spec"]["terminationGracePeriodSeconds"]
    name = client.submit(target=TARGET, execution_id="pod", pod=pod).execution.name
    story = follow(client, name)
    assert story.text() == ["of the pod"]
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED


def test_a_cancelled_job_is_told_as_such_when_it_is_over(batch: Batch, broker: Broker) -> None:
    batch.register(WAITS)
    client = broker.client()
    name = submit(client, "cancelled")
    follow_until(client, name, has_line("ready"))
    client.cancel(name, reason="not needed")
    story = follow(client, name)
    assert story.text()[-1] == "told"
    assert story.end.state is podbroker.ExecutionState.CANCELLED
    assert story.outcome.failure_class is podbroker.FailureClass.CANCELLED_BY_CALLER
    (job,) = batch.jobs()
    assert job["is_terminated"]
    assert "not needed" in job["reason"]


def test_children_of_an_array_are_told_apart(batch: Batch, broker: Broker) -> None:
    story = run(batch, broker, "echo child $AWS_BATCH_JOB_ARRAY_INDEX", array_size=5)
    assert {name: story.text(name) for name in story.lines} == {f"{n}/main": [f"child {n}"] for n in range(5)}
    assert not story.gaps
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED


def test_attempts_of_a_job_are_told_apart(batch: Batch, broker: Broker) -> None:
    script = "echo attempt $AWS_BATCH_JOB_ATTEMPT; [ $AWS_BATCH_JOB_ATTEMPT = 2 ]"
    story = run(batch, broker, script, attempts=3)
    assert story.text() == ["attempt 1", "attempt 2"]
    assert [attempt.number for attempt in story.end.attempts] == [1, 2]
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED


def test_a_lost_answer_makes_no_second_job(aws: Aws, batch: Batch, broker: Broker) -> None:
    batch.register("echo once")
    aws.faults({"service": "batch", "action": "SubmitJob", "kind": "lost_answer", "times": 1})
    client = broker.client()
    story = follow(client, submit(client, "lost"))
    assert story.text() == ["once"]
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED
    assert len(batch.jobs()) == 1


def test_a_job_of_a_lost_request_is_submitted_again(aws: Aws, batch: Batch, broker: Broker) -> None:
    batch.register("echo once")
    aws.faults({"service": "batch", "action": "SubmitJob", "kind": "reset", "times": 1})
    client = broker.client()
    story = follow(client, submit(client, "reset"))
    assert story.text() == ["once"]
    assert len(batch.jobs()) == 1


def test_a_broker_that_is_killed_loses_no_job(aws: Aws, batch: Batch, brokers: Brokers, namespace: Namespace) -> None:
    broker = prepared(aws, brokers, namespace).start()
    lines = [f"line {n}".encode() for n in range(60)]
    batch.register("for i in $(seq 0 59); do echo line $i; sleep 0.1; done")
    client = broker.client()
    with client.watch(submit(client, "killed")) as watch:
        from e2e.following import Story, collect

        story = collect(watch, Story(), has_line("line 9"), within=120)
        broker.kill()
        broker.start()
        collect(watch, story, ended, within=120)
    check_lines(story.content(), lines, story.gaps)
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED
    assert len(batch.jobs()) == 1


def test_a_released_job_leaves_nothing_in_the_cluster(batch: Batch, broker: Broker, namespace: Namespace) -> None:
    batch.register("echo done")
    client = broker.client()
    work = podbroker.BatchWorkload(job_definition=DEFINITION)
    name = client.submit(target=TARGET, execution_id="job", batch=work, submit_before=soon()).execution.name
    story = follow(client, name)
    client.release(name)
    # Nothing is deleted before the end of the submit window, and what clocks may differ by.
    wait_for("the record to go", lambda: not records(namespace), within=180)
    assert story.text() == ["done"]


def test_what_batch_cannot_have_is_refused_with_every_field(batch: Batch, broker: Broker) -> None:
    batch.register("true")
    pod = shell("true")
    pod["spec"] |= {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}
    with pytest.raises(podbroker.InvalidSpecError) as refused:
        broker.client().submit(target=TARGET, execution_id="refused", pod=pod)
    assert "nodeSelector" in str(refused.value)
    assert "tolerations" in str(refused.value)
    assert not batch.jobs()
