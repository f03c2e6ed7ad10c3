"""The trigger that starts the pod: who ends the task, and what becomes of the pod of one that is stopped or killed."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import scripted as s
from batches import job_attempt, job_end, job_state
from starts import Driver, started
from versions import DAG, TaskDeferred

from podbroker import ConflictError, ExecutionState, UnavailableError
from podbroker.airflow import RemotePodOperator
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AIRFLOW_V_3_3_PLUS, TaskDeferralError
from podbroker.airflow.start_trigger import RemotePodStartTrigger
from podbroker.airflow.trigger import RemotePodTrigger
from podbroker.exceptions import NotAllowedError

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow can do it from 3.3 on")

OWN = "targets/somewhere/executions/dag.task.airflow.0193f000-0000-7000-8000-000000000001"


@pytest.fixture(autouse=True)
def _short_budgets(monkeypatch, log):
    monkeypatch.setattr("podbroker.airflow.session.ANSWER_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.session.RELEASE_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.submission.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.start_trigger.STORED_SECONDS", 5.0)
    monkeypatch.setattr(RemotePodStartTrigger, "log", log)


@pytest.fixture(autouse=True)
def pushed(monkeypatch):
    """What is said to Airflow's supervisor."""
    from airflow.sdk.execution_time import task_runner

    sent = []
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(send=sent.append), raising=False)
    return sent


@pytest.fixture
def driver(client, triggerer):
    triggerer.state = "success"
    return Driver(client, triggerer.many)


def dag_with(**arguments):
    with DAG(dag_id="dag", schedule=None) as dag:
        RemotePodOperator(**{"task_id": "task", "start_from_trigger": True, "target": "somewhere"} | arguments)
    return dag


def resume(make, context, event, **arguments):
    """Goes on in a worker, as Airflow does, with what is stored."""
    kwargs = {"event": json.loads(json.dumps(event.payload))}
    return make(start_from_trigger=True, **arguments).resume_execution("trigger_reentry", kwargs, context)


def printed(log):
    return [text for text in log.lines if text.startswith("[")]


def test_a_pod_that_succeeds_is_started_followed_and_ended_without_a_worker(driver, client, log, pushed):
    client.features = ("group",)
    client.script = [s.state(s.S.RUNNING), s.lines("one", "two"), s.end()]
    dag = dag_with(image="busybox:1", arguments=["{{ ds }} {{ dag_run.conf.word }}"], retries=2)
    event = driver.run(started(dag))
    assert str(event.task_instance_state) == "success"
    assert {message.key: message.value for message in pushed} == {"pod_name": "pod-1", "pod_namespace": "there"}
    assert printed(log) == ["[base] one", "[base] two"]
    (submit,) = client.submits
    assert submit["execution_id"] == OWN.rpartition("/")[2]
    assert submit["pod"]["spec"]["containers"][0]["args"] == ["2026-11-21 hello"]
    assert submit["labels"]["max_tries"] == "2"
    assert submit["labels"]["in_group"] == "true"
    assert submit["group"].not_before == datetime(2026, 11, 21, 11, tzinfo=timezone.utc)
    assert client.did("release") == [(OWN, "claim")]


def test_the_worker_makes_the_same_request(driver, client, make, context):
    client.script = [s.state(s.S.RUNNING), s.end()]
    driver.run(started(dag_with(image="busybox:1", cmds=["true"])))
    with pytest.raises(TaskDeferred):
        make(deferrable=True).execute(context)
    ours, theirs = client.submits
    assert ours["pod"]["spec"] == theirs["pod"]["spec"]
    assert ours["execution_id"] == theirs["execution_id"]
    assert ours["labels"] == theirs["labels"]
    assert ours["policies"] == theirs["policies"]


def test_the_pod_is_kept_until_airflow_has_stored_the_success(driver, client):
    client.script = [s.state(s.S.RUNNING), s.end()]
    driver.run(started(dag_with()), stored=False)
    assert not client.did("release"), "another triggerer will find it, and do the same"


@pytest.mark.parametrize(("state", "released"), [("success", True), ("deferred", False)])
def test_airflow_is_asked_for_the_task_only_if_it_does_not_take_the_trigger_away(
    client, triggerer, monkeypatch, state, released
):
    monkeypatch.setattr("podbroker.airflow.start_trigger.STORED_SECONDS", 0.0)
    triggerer.state = state
    client.script = [s.state(s.S.RUNNING), s.end()]
    trigger = started(dag_with())

    async def main():
        [_ async for _ in trigger.run()]
        await trigger.cleanup()

    asyncio.run(main())
    assert bool(client.did("release")) is released


def test_another_triggerer_finds_the_pod_of_one_that_is_gone(driver, client, triggerer, log):
    triggerer.state = "deferred"
    client.script = [s.state(s.S.RUNNING), s.lines("one")]
    trigger = started(dag_with())
    assert driver.stop(trigger, when=lambda: "[base] one" in log.lines, kill=False) == []
    assert not client.did("cancel")
    assert triggerer.xcoms["place"]["exact"]

    triggerer.state = "success"
    client.script = [s.state(s.S.RUNNING), s.lines("two"), s.end()]
    event = driver.run(started(dag_with()))
    assert str(event.task_instance_state) == "success"
    assert len(client.known) == 1
    assert [submit["execution_id"] for submit in client.submits] == [OWN.rpartition("/")[2]] * 2
    assert triggerer.many.followed[-1]["cursor"] == b"l"
    assert printed(log) == ["[base] one", "[base] two"]


def test_a_pod_that_ended_while_nobody_looked_is_settled_by_a_worker(driver, client, make, context, log):
    client.known[OWN] = s.execution(s.S.SUCCEEDED, id=OWN.rpartition("/")[2], outcome=s.succeeded())
    event = driver.run(started(dag_with()))
    assert event.payload["to_worker"]
    assert (event.payload["execution"], event.payload["claim"]) == (OWN, "claim")

    client.script = [s.state(s.S.RUNNING), s.lines("one"), s.end()]
    assert resume(make, context, event) is None
    assert "Lines that a triggerer has printed may come again below" in log.lines
    assert printed(log) == ["[base] one"]
    assert client.did("release") == [(OWN, "claim")]


def test_a_failure_goes_to_a_worker_which_raises_what_is_right(driver, client, make, context, log):
    client.script = [s.state(s.S.RUNNING), s.lines("no such table"), s.end(s.failed(exit_code=3))]
    event = driver.run(started(dag_with()))
    assert event.payload["status"] == "failed"
    assert not client.did("release"), "the worker does it"

    client.script = [s.lines("no such table"), s.end(s.failed(exit_code=3))]
    with pytest.raises(ex.RemotePodFailed, match="no such table") as caught:
        resume(make, context, event)
    assert caught.value.exit_code == 3
    assert printed(log) == ["[base] no such table"]
    assert context["ti"].xcom == {"pod_name": "pod-1", "pod_namespace": "there"}
    assert client.did("release") == [(OWN, "claim")]


@pytest.mark.parametrize("late", ["", "aws-batch.x"])
def test_the_name_of_a_pod_that_is_made_later_is_pushed_as_soon_as_it_is_known(driver, client, make, context, late):
    client.made = {"attempts": (job_attempt(),)}
    client.script = [job_state(s.S.RUNNING), job_end(s.failed(exit_code=3))]
    event = driver.run(started(dag_with()))
    assert event.payload["name"] == ""

    client.script = [job_end(s.failed(exit_code=3), job_attempt(pod=late))]
    with pytest.raises(ex.RemotePodFailed):
        resume(make, context, event)
    assert context["ti"].xcom == ({"pod_name": late, "pod_namespace": "jobs"} if late else {})


def test_a_name_that_never_became_known_is_not_pushed(driver, client, pushed):
    client.made = {"attempts": (job_attempt(),)}
    client.script = [job_state(s.S.RUNNING), job_end()]
    assert str(driver.run(started(dag_with())).task_instance_state) == "success"
    assert pushed == []


def test_a_value_is_pushed_by_the_trigger_and_is_not_in_the_event(driver, client, pushed):
    trigger = started(dag_with(do_xcom_push=True))
    client.script = [s.state(s.S.RUNNING), s.result(b'{"word": "a secret"}'), s.end()]
    event = driver.run(trigger)
    assert str(event.task_instance_state) == "success"
    message = pushed[-1]
    assert (message.type, message.key, message.value) == ("SetXCom", "return_value", {"word": "a secret"})
    assert (message.dag_id, message.task_id, message.run_id) == ("dag", "task", "manual__2026-11-21")
    assert "secret" not in str(event)


def test_a_value_that_cannot_be_pushed_is_left_to_a_worker(driver, client, monkeypatch, log):
    from airflow.sdk.execution_time import task_runner

    trigger = started(dag_with(do_xcom_push=True))

    def refuse(_):
        raise RuntimeError("a secret")

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(send=refuse), raising=False)
    client.script = [s.state(s.S.RUNNING), s.result(b'"a secret"'), s.end()]
    event = driver.run(trigger)
    assert (event.payload["status"], event.payload["complete"]) == ("success", True)
    assert "secret" not in log.text + json.dumps(event.payload)


def test_a_broken_value_is_left_to_a_worker_which_fails(driver, client, make, context):
    client.script = [s.state(s.S.RUNNING), s.result(b"{"), s.end()]
    event = driver.run(started(dag_with(do_xcom_push=True)))
    client.script = [s.state(s.S.RUNNING), s.result(b"{"), s.end()]
    with pytest.raises(ex.RemotePodResultError):
        resume(make, context, event, do_xcom_push=True)


def test_a_success_that_needs_a_worker_gets_one(driver, client, make, context):
    client.script = [s.state(s.S.RUNNING), s.end()]
    event = driver.run(started(dag_with(on_success_callback=print)))
    assert event.payload["status"] == "success"
    assert not client.did("release")
    client.script = [s.state(s.S.SUCCEEDED), s.end()]
    resume(make, context, event)
    assert client.did("release") == [(OWN, "claim")]


def test_a_task_that_others_are_mapped_over_is_ended_by_a_worker(driver, client):
    with DAG(dag_id="dag", schedule=None) as dag:
        above = RemotePodOperator(task_id="task", start_from_trigger=True, target="somewhere", do_xcom_push=True)
        RemotePodOperator.partial(task_id="mapped", target="somewhere").expand(arguments=above.output)
    client.script = [s.state(s.S.RUNNING), s.result(b'[["a"]]'), s.end()]
    assert driver.run(started(dag)).payload["status"] == "success"


def test_another_try_is_started_by_a_worker(driver, client, triggerer, make, context):
    triggerer.xcoms["return_value"] = "of the try before"
    event = driver.run(started(dag_with(), try_number=2))
    assert event.payload["status"] == "start"
    assert not client.submits
    assert not triggerer.xcoms

    with pytest.raises(TaskDeferred) as caught:
        resume(make, context, event)
    assert isinstance(caught.value.trigger, RemotePodTrigger)
    assert client.submits


@pytest.mark.parametrize(
    "refusal", [NotAllowedError("not you"), ConflictError("another", reason="EXECUTION_ID_REUSED")]
)
def test_a_submit_that_is_refused_is_repeated_by_a_worker(driver, client, make, context, refusal):
    client.refusals = [refusal]
    event = driver.run(started(dag_with()))
    assert event.payload == {"status": "start", "message": f"it failed in the triggerer ({type(refusal).__name__})"}

    client.refusals = [NotAllowedError("not you")]
    with pytest.raises(ex.RemotePodNotAllowed, match="not you"):
        resume(make, context, event)


def test_a_template_that_cannot_be_rendered_is_left_to_a_worker(driver, client):
    event = driver.run(started(dag_with(arguments=["{{ dag_run.conf.no.such }}"])))
    assert event.payload == {"status": "start", "message": "it failed in the triggerer (UndefinedError)"}
    assert not client.submits


def test_a_pod_mutation_hook_of_the_triggerer_is_left_to_a_worker(driver, client, monkeypatch):
    trigger = started(dag_with())
    monkeypatch.setattr("podbroker.airflow.submission.changes_pods", lambda: True)
    assert driver.run(trigger).payload["status"] == "start"
    assert not client.submits


def test_a_broker_that_is_away_is_waited_for(driver, client):
    client.refusals = [UnavailableError("away"), UnavailableError("away")]
    client.script = [s.state(s.S.RUNNING), s.end()]
    assert str(driver.run(started(dag_with())).task_instance_state) == "success"
    assert len({submit["submit_before"] for submit in client.submits}) == 1
    assert len(client.submits) == 3


def test_a_broker_that_stays_away_is_left_to_a_worker(driver, client, monkeypatch):
    monkeypatch.setattr("podbroker.airflow.request.SUBMIT_WINDOW", timedelta(0))
    client.refusals = [UnavailableError("away")]
    assert driver.run(started(dag_with())).payload["status"] == "start"


def test_a_users_kill_ends_the_pod(driver, client, triggerer, log):
    triggerer.state = "failed"
    client.script = [s.state(s.S.RUNNING), s.lines("ready")]
    client.after_cancel = [s.lines("bye"), s.end(s.failed())]
    assert driver.stop(started(dag_with()), when=lambda: "[base] ready" in log.lines, kill=True) == []
    ((name, claim, _),) = client.did("cancel")
    assert (name, claim) == (OWN, "claim")
    assert printed(log) == ["[base] ready", "[base] bye"]
    assert client.did("release") == [(OWN, "claim")]


def test_a_users_kill_in_the_middle_of_a_submit_ends_what_was_started(driver, client, triggerer):
    triggerer.state = "failed"
    client.after_cancel = [s.state(s.S.CANCELLED), s.end(s.failed())]
    may_answer = None
    submit = client.submit

    async def slow(**kwargs):
        nonlocal may_answer
        answer = submit(**kwargs)
        may_answer = True
        await asyncio.sleep(0.2)
        return answer

    client.submit_async = slow
    driver.stop(started(dag_with()), when=lambda: may_answer is True, kill=True)
    assert [name for name, *_ in client.did("cancel")] == [OWN]


def test_a_pod_to_keep_is_kept(driver, client, triggerer, log):
    triggerer.state = "failed"
    client.script = [s.state(s.S.RUNNING), s.lines("ready")]
    trigger = started(dag_with(on_kill_action="keep_pod"))
    driver.stop(trigger, when=lambda: "[base] ready" in log.lines, kill=True)
    assert not client.did("cancel")


def test_a_trigger_that_failed_before_it_started_a_pod_is_replaced_by_a_worker(make, client, context, log):
    arguments = {"error": "Trigger failure", "traceback": None}
    with pytest.raises(TaskDeferred):
        make(start_from_trigger=True).resume_execution("__fail__", arguments, context)
    assert [submit["must_exist"] for submit in client.submits] == [True, False]
    assert "it is started here" in log.text

    client.known.clear()
    with pytest.raises(TaskDeferralError):
        make(deferrable=True).resume_execution("__fail__", arguments, context)


def test_a_task_that_could_not_start_in_the_triggerer_says_why_once(make, context, log):
    with pytest.raises(TaskDeferred):
        make(start_from_trigger=True, env_vars={"A": "b"}).execute(context)
    said = [text for text in log.lines if "start_from_trigger" in text]
    assert said == ["start_from_trigger has no effect: env_vars holds values"]


def test_the_reason_is_that_of_the_dag_and_not_of_what_a_template_became(make, context, log):
    operator = make(start_from_trigger=True, env_vars={"A": "{{ ds }}"}, log_formatter=None)
    operator.render_template_fields({"ds": "2026-11-21"})
    context["ti"].map_index = 3
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    assert "start_from_trigger has no effect: a mapped task is started by a worker" in log.lines
    assert operator.start.why_not == ""
    assert client_state(operator) is ExecutionState.PENDING


def client_state(operator):
    return operator.known_execution.state
