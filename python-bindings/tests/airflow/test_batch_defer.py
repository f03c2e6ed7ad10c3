"""The operator of Batch when it defers: the same trigger, the same channel, in words of a job."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
import scripted as s
from batches import JOB, LINKS, failing, job_attempt, job_end, job_state
from versions import TaskDeferred

from podbroker import FailureClass, ResultSource
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException, AirflowTaskTimeout
from podbroker.airflow.trigger import RemotePodTrigger

QUEUED, RUNNING, SUCCEEDED = s.S.QUEUED, s.S.RUNNING, s.S.SUCCEEDED
OWN = "targets/somewhere/executions/dag.task.airflow.0193f000-0000-7000-8000-000000000001"


@pytest.fixture(autouse=True)
def _short_budgets(monkeypatch):
    monkeypatch.setattr("podbroker.airflow.session.CANCEL_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.session.ANSWER_SECONDS", 0.0)


def defer(operator, context):
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    return caught.value


def resume(operator, context, deferred, event):
    kwargs = json.loads(json.dumps(deferred.kwargs))
    return operator.resume_execution(deferred.method_name, {**kwargs, "event": event}, context)


def ended(client, outcome, *attempts):
    """The broker says so to whoever reads the execution."""
    client.known[OWN] = s.execution(
        outcome.state, id=OWN.rpartition("/")[2], outcome=outcome, attempts=attempts or (job_attempt(),)
    )


def printed(log):
    return [text for text in log.lines if text.startswith("[")]


def test_a_worker_submits_the_job(batch):
    operator = batch(deferrable=True)
    assert not operator.start_from_trigger
    assert operator.start_trigger_args is None
    with pytest.raises((AirflowException, TypeError), match="start_from_trigger"):
        batch(start_from_trigger=True)


def test_the_job_is_submitted_and_left_to_the_trigger_of_pods(batch, client, context):
    deferred = defer(batch(deferrable=True), context)
    assert isinstance(deferred.trigger, RemotePodTrigger)
    assert (deferred.trigger.name, deferred.trigger.claim, deferred.trigger.noun) == (OWN, "claim", "job")
    assert context["ti"].xcom == LINKS, "the links are there while the job runs"
    assert client.watches == []
    path, row = deferred.trigger.serialize()
    assert path == "podbroker.airflow.trigger.RemotePodTrigger"
    assert row["noun"] == "job"


def test_a_row_of_a_pod_says_nothing_new(make, client, context):  # noqa: ARG001
    _, row = defer(make(deferrable=True), context).trigger.serialize()
    assert "noun" not in row


def test_the_links_are_waited_for_before_the_task_defers(batch, client, context):
    client.made = {"attempts": (job_attempt(""),)}
    client.script = [job_state(QUEUED, job_attempt("")), job_state(QUEUED)]
    defer(batch(deferrable=True), context)
    assert context["ti"].xcom == LINKS
    assert client.watched[0]["logs"] is False
    assert client.watches[0].closed


def test_a_job_whose_id_takes_long_has_its_links_later(batch, client, context, triggerer, monkeypatch):
    monkeypatch.setattr("podbroker.airflow.batch_lifecycle.JOB_SECONDS", 0.1)
    client.made = {"attempts": (job_attempt(""),)}
    deferred = defer(batch(deferrable=True), context)
    assert context["ti"].xcom == {}
    client.script = [job_state(RUNNING), job_end()]
    event = triggerer.run(deferred.trigger)
    ended(client, s.succeeded())
    client.script = [job_end()]
    assert resume(batch(deferrable=True), context, deferred, event) == JOB
    assert context["ti"].xcom == LINKS


def test_a_deferred_task_gives_the_id_and_prints_each_line_once(batch, client, context, log, triggerer):
    deferred = defer(batch(deferrable=True, array_properties={"size": 2}), context)
    client.script = [
        job_state(QUEUED),
        job_state(RUNNING),
        s.lines("zero", name="0/main"),
        s.lines("one", name="1/main"),
        job_end(),
    ]
    event = triggerer.run(deferred.trigger)
    assert f"::group::Waiting for job {JOB} to start" in log.lines
    assert "Pod " not in log.text
    ended(client, s.succeeded())
    client.script = [job_end()]
    assert resume(batch(deferrable=True), context, deferred, event) == JOB
    assert printed(log) == ["[0/main] zero", "[1/main] one"]
    assert client.watched[-1]["logs"] is False
    assert client.did("release") == [(OWN, "claim")]
    assert f"Job {JOB} ended: SUCCEEDED" in log.lines


def test_a_deferred_task_fails_typed_with_the_last_lines_of_the_child_that_failed(
    batch, client, context, log, triggerer
):
    outcome = failing(("0/main", 0), ("1/main", 3))
    deferred = defer(batch(deferrable=True), context)
    client.script = [job_state(RUNNING), s.lines("no such table", name="1/main"), job_end(outcome)]
    event = triggerer.run(deferred.trigger)
    ended(client, outcome)
    client.script = [s.lines("no such table", name="1/main"), job_end(outcome)]
    with pytest.raises(ex.RemotePodFailed, match="Last lines of container 1/main:\n  no such table") as caught:
        resume(batch(deferrable=True), context, deferred, event)
    assert caught.value.exit_code == 3
    assert client.watched[-1]["containers"] == ("1/main",)
    assert client.watched[-1]["tail_lines"] == 10
    assert printed(log) == ["[1/main] no such table"]


def test_what_a_job_hands_back_is_fetched_when_the_task_comes_back(batch, client, context, triggerer):
    arguments = {"deferrable": True, "result_source": ResultSource.TERMINATION_MESSAGE}
    deferred = defer(batch(**arguments), context)
    client.script = [job_state(RUNNING), s.result(b'"marmalade"'), job_end()]
    event = triggerer.run(deferred.trigger)
    assert "marmalade" not in json.dumps(event)
    ended(client, s.succeeded())
    client.script = [s.result(b'"marmalade"'), job_end()]
    assert resume(batch(**arguments), context, deferred, event) == JOB
    assert context["ti"].xcom == {**LINKS, "result": "marmalade"}
    assert client.did("release")


@pytest.fixture
def _away(monkeypatch):
    async def fail(_):
        raise RuntimeError("away")

    monkeypatch.setattr("podbroker.airflow.follower.Follower.leave", fail)


@pytest.mark.usefixtures("_away")
def test_what_a_trigger_could_not_do_at_its_end_is_said_of_a_job(batch, client, context, log, triggerer):
    deferred = defer(batch(deferrable=True), context)
    client.script = [job_state(RUNNING)]
    triggerer.stop(deferred.trigger)
    assert "What is left to do for the job was not done: away" in log.lines


def test_a_deferred_task_has_the_last_lines_of_an_init_container_that_failed(batch, client, context, triggerer):
    role = s.ContainerRole.INIT
    outcome = s.failed(containers=(s.container("fetch", exit_code=4, role=role),))
    deferred = defer(batch(deferrable=True), context)
    client.script = [job_state(RUNNING), job_end(outcome)]
    event = triggerer.run(deferred.trigger)
    ended(client, outcome)
    client.script = [s.lines("no such bucket", name="fetch", role=role), job_end(outcome)]
    with pytest.raises(ex.RemotePodFailed, match="Last lines of container fetch:\n  no such bucket"):
        resume(batch(deferrable=True), context, deferred, event)


def test_a_task_that_defers_waits_for_the_end_in_any_case(batch, client, context, triggerer):
    arguments = {"deferrable": True, "wait_for_completion": False}
    deferred = defer(batch(**arguments), context)
    client.script = [job_state(RUNNING), job_end()]
    event = triggerer.run(deferred.trigger)
    ended(client, s.succeeded())
    client.script = [job_end()]
    assert resume(batch(**arguments), context, deferred, event) == JOB
    assert client.did("release")


def test_a_user_who_kills_a_deferred_task_ends_its_job_and_sees_its_last_lines(batch, client, context, log, triggerer):
    deferred = defer(batch(deferrable=True), context)
    client.script = [job_state(RUNNING), s.lines("working", name="main")]
    client.after_cancel = [s.lines("bye", name="main"), job_end(s.failed(FailureClass.CANCELLED_BY_CALLER))]
    triggerer.stop(deferred.trigger, kill=True)
    assert {call[:2] for call in client.did("cancel")} == {(OWN, "claim")}
    assert printed(log) == ["[main] working", "[main] bye"]


def test_execution_timeout_ends_the_job(batch, client, context, triggerer):
    context["ti"].start_date = datetime.now(tz=timezone.utc) - timedelta(seconds=10)
    arguments = {"deferrable": True, "execution_timeout": timedelta(seconds=10.2)}
    deferred = defer(batch(**arguments), context)
    client.script = [job_state(RUNNING)]
    client.after_cancel = [job_end(s.failed(FailureClass.CANCELLED_BY_CALLER))]
    event = triggerer.run(deferred.trigger)
    with pytest.raises(AirflowTaskTimeout, match=f"Job {JOB} was cancelled"):
        resume(batch(**arguments), context, deferred, event)
    assert client.did("cancel")


def test_a_trigger_that_cannot_follow_is_followed_by_another_one(batch, client, context, log):
    deferred = defer(batch(deferrable=True), context)
    event = {"status": "error", "message": "away", "name": "", "namespace": "", "complete": False, "cursor": ""}
    client.known[OWN] = s.execution(RUNNING, id=OWN.rpartition("/")[2], attempts=(job_attempt(),))
    with pytest.raises(TaskDeferred) as caught:
        resume(batch(deferrable=True), context, deferred, event)
    assert caught.value.kwargs["triggers"] == 2
    assert "The trigger could not follow the job (away): deferring again" in log.lines


def test_a_trigger_that_failed_leaves_the_job_to_the_worker(batch, client, context, log):
    defer(batch(deferrable=True), context)
    client.script = [job_state(RUNNING), s.lines("one", name="main"), job_end()]
    next_kwargs = {"error": "Trigger failure", "traceback": ["no module named podbroker"]}
    assert batch(deferrable=True).resume_execution("__fail__", next_kwargs, context) == JOB
    assert printed(log) == ["[main] one"]
    assert [submit["must_exist"] for submit in client.submits] == [False, True]
    assert client.did("release")


def test_a_job_that_has_ended_already_is_not_deferred_for(batch, client, context, log):
    client.made = {"attempts": (job_attempt(),), "state": SUCCEEDED, "outcome": s.succeeded()}
    client.script = [s.lines("hello", name="main"), job_end()]
    assert batch(deferrable=True).execute(context) == JOB
    assert printed(log) == ["[main] hello"]


def test_a_pod_operator_at_a_target_of_batch_pushes_the_name_when_it_comes_back(make, client, context, triggerer):
    client.made = {"attempts": (job_attempt(),)}
    deferred = defer(make(deferrable=True), context)
    assert context["ti"].xcom == {}
    last = job_attempt(pod="aws-batch.x")
    client.script = [job_state(RUNNING, last), job_end(None, last)]
    event = triggerer.run(deferred.trigger)
    ended(client, s.succeeded(), last)
    client.script = [job_end(None, last)]
    assert resume(make(deferrable=True), context, deferred, event) is None
    assert context["ti"].xcom == {"pod_name": "aws-batch.x", "pod_namespace": "jobs"}
