"""The operator that defers: what it hands to the trigger, and how it settles what the trigger says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import pytest
import scripted as s
from repository import page
from triggers import shout, stumble
from versions import TaskDeferred, has_deferral_timeouts

from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import (
    AirflowRescheduleException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)
from podbroker.airflow.deferral import MAX_TRIGGERS
from podbroker.airflow.trigger import RemotePodTrigger
from podbroker.exceptions import NotAllowedError

OWN = "targets/somewhere/executions/dag.task.airflow.0193f000-0000-7000-8000-000000000001"


@pytest.fixture(autouse=True)
def _short_budgets(monkeypatch):
    monkeypatch.setattr("podbroker.airflow.session.CANCEL_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.session.RELEASE_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.session.ANSWER_SECONDS", 0.0)


def defer(operator, context):
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    return caught.value


def resume(operator, context, deferred, event):
    """Goes on in another process, as Airflow does: with what was stored, by a method's name."""
    kwargs = json.loads(json.dumps(deferred.kwargs))
    return operator.resume_execution(deferred.method_name, {**kwargs, "event": event}, context)


def printed(log):
    return [text for text in log.lines if text.startswith("[")]


def test_the_pod_is_started_and_left_to_the_trigger(make, client, context):
    deferred = defer(make(deferrable=True), context)
    (submit,) = client.submits
    assert submit["execution_id"] == OWN.rpartition("/")[2]
    assert not client.watched
    assert isinstance(deferred.trigger, RemotePodTrigger)
    assert (deferred.trigger.name, deferred.trigger.claim) == (OWN, "claim")
    assert deferred.timeout is None
    assert context["ti"].xcom == {"pod_name": "pod-1", "pod_namespace": "there"}
    json.dumps([*deferred.trigger.serialize(), deferred.kwargs])


def test_a_deferred_task_succeeds_with_its_value_and_prints_each_line_once(make, client, context, log, triggerer):
    deferred = defer(make(deferrable=True, do_xcom_push=True), context)
    client.script = [s.state(s.S.RUNNING), s.lines("one", "two"), s.result(b'{"a": 1}'), s.end()]
    event = triggerer.run(deferred.trigger)

    client.script = [s.state(s.S.SUCCEEDED), s.lines("one", "two"), s.result(b'{"a": 1}'), s.end()]
    assert resume(make(deferrable=True, do_xcom_push=True), context, deferred, event) == {"a": 1}
    assert printed(log) == ["[base] one", "[base] two"]
    assert client.did("release") == [(OWN, "claim")]
    verbs = [verb for verb, _ in client.calls]
    assert verbs.index("watch") < verbs.index("release"), "only what has been fetched is acknowledged"
    assert "Pod pod-1 ended: SUCCEEDED" in log.text


def test_a_deferred_task_fails_typed_with_its_last_lines_in_the_message(make, client, context, log, triggerer):
    deferred = defer(make(deferrable=True), context)
    client.script = [s.state(s.S.RUNNING), s.lines("no such table"), s.end(s.failed(exit_code=3))]
    event = triggerer.run(deferred.trigger)

    client.script = [s.lines("no such table"), s.end(s.failed(exit_code=3))]
    with pytest.raises(ex.RemotePodFailed, match="no such table") as caught:
        resume(make(deferrable=True), context, deferred, event)
    assert caught.value.exit_code == 3
    assert printed(log) == ["[base] no such table"]
    assert client.watched[-1]["tail_lines"] == 10
    assert client.did("release")


def test_skip_on_exit_code_skips(make, client, context, triggerer):
    arguments = {"deferrable": True, "skip_on_exit_code": 99}
    deferred = defer(make(**arguments), context)
    client.script = [s.state(s.S.RUNNING), s.end(s.failed(exit_code=99))]
    event = triggerer.run(deferred.trigger)
    client.script = [s.end(s.failed(exit_code=99))]
    with pytest.raises(AirflowSkipException):
        resume(make(**arguments), context, deferred, event)


def test_execution_timeout_is_the_deadline_of_the_trigger(make, client, context, triggerer):
    context["ti"].start_date = datetime.now(tz=timezone.utc) - timedelta(seconds=10)
    arguments = {"deferrable": True, "execution_timeout": timedelta(seconds=10.2)}
    deferred = defer(make(**arguments), context)
    assert deferred.trigger.deadline == pytest.approx(time.time(), abs=1)
    assert deferred.timeout > timedelta(minutes=1), "Airflow's own timeout only catches what the trigger does not"

    client.script = [s.state(s.S.RUNNING)]
    client.after_cancel = [s.end(s.failed(s.FailureClass.CANCELLED_BY_CALLER))]
    event = triggerer.run(deferred.trigger)
    with pytest.raises(AirflowTaskTimeout):
        resume(make(**arguments), context, deferred, event)
    assert {call[:2] for call in client.did("cancel")} == {(OWN, "claim")}
    assert client.did("release") == [(OWN, "claim")]


@has_deferral_timeouts
def test_a_trigger_that_airflow_has_timed_out_takes_the_pod_with_it(make, client, context):
    arguments = {"deferrable": True, "execution_timeout": timedelta(seconds=1)}
    defer(make(**arguments), context)
    with pytest.raises(TaskDeferralTimeout):
        make(**arguments).resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert [submit["must_exist"] for submit in client.submits] == [False, True]
    assert client.did("cancel")[0][:2] == (OWN, "claim")


def test_a_trigger_that_failed_leaves_the_pod_to_the_worker(make, client, context, log):
    defer(make(deferrable=True), context)
    client.script = [s.state(s.S.RUNNING), s.lines("one"), s.end()]
    next_kwargs = {"error": "Trigger failure", "traceback": ["no module named podbroker"]}
    assert make(deferrable=True).resume_execution("__fail__", next_kwargs, context) is None
    assert printed(log) == ["[base] one"]
    assert client.did("release")
    assert not client.did("cancel")


def test_a_trigger_that_failed_and_a_pod_that_is_gone_fail_the_task(make, client, context):
    defer(make(deferrable=True), context)
    client.known.clear()
    with pytest.raises(TaskDeferralError):
        make(deferrable=True).resume_execution("__fail__", {"error": "Trigger failure"}, context)
    assert client.known == {}


def test_a_trigger_that_could_not_follow_is_followed_by_another_and_then_by_the_worker(
    make, client, context, log, triggerer
):
    deferred = defer(make(deferrable=True), context)
    for number in range(1, MAX_TRIGGERS + 1):
        assert deferred.kwargs["triggers"] == number
        text, cursor = f"line {number}", f"after {number}".encode()
        client.script = [s.state(s.S.RUNNING), s.lines(text, cursor=cursor), NotAllowedError("the token is old")]
        event = triggerer.run(deferred.trigger, trigger_id=number)
        if number < MAX_TRIGGERS:
            with pytest.raises(TaskDeferred) as caught:
                resume(make(deferrable=True), context, deferred, event)
            deferred = caught.value
    client.script = [s.lines("the rest"), s.end()]
    resume(make(deferrable=True), context, deferred, event)
    assert printed(log) == ["[base] line 1", "[base] line 2", "[base] line 3", "[base] the rest"]
    assert client.watched[-1]["cursor"] == b"after 3"


def test_a_formatter_that_fails_in_the_triggerer_fails_the_task_as_in_a_worker_and_repeats_no_line(
    make, client, context, log, triggerer
):
    operator = make(deferrable=True, log_formatter=stumble)
    deferred = defer(operator, context)
    chunk = s.lines("one", "two", "stone", "three")
    client.script = [s.state(s.S.RUNNING), chunk]
    event = triggerer.run(deferred.trigger)
    # What the broker sends from the place that the trigger came to.
    client.script = [s.lines("stone", "three"), s.end()]
    with pytest.raises(ValueError, match="base stumbled"):
        resume(make(deferrable=True, log_formatter=stumble), context, deferred, event)
    assert client.watched[-1]["cursor"] == chunk.cursor_after(2)
    assert [text for text in log.lines if text.startswith("base: ")] == ["base: one", "base: two"]
    assert log.text.count("base stumbled") == 1
    assert not client.did("cancel")


def test_a_formatter_that_fails_in_the_triggerer_only_costs_nothing(make, client, context, log, triggerer):
    deferred = defer(make(deferrable=True, log_formatter=stumble), context)
    client.script = [s.state(s.S.RUNNING), s.lines("one", "stone", "three")]
    event = triggerer.run(deferred.trigger)
    client.script = [s.lines("stone", "three"), s.end()]
    assert resume(make(deferrable=True, log_formatter=shout), context, deferred, event) is None
    assert [text for text in log.lines if text.startswith("base: ")] == ["base: one", "base: STONE", "base: THREE"]


def test_lines_whose_formatter_cannot_travel_are_printed_by_the_worker(make, client, context, log, triggerer):
    def whisper(container: str, text: str) -> str:
        return f"[{container}] {text.lower()}"

    deferred = defer(make(deferrable=True, log_formatter=whisper), context)
    client.script = [s.state(s.S.RUNNING), s.end()]
    event = triggerer.run(deferred.trigger)
    assert triggerer.many.followed[0]["logs"] is False
    client.known[OWN] = s.end().execution
    client.script = [s.lines("ONE"), s.end()]
    resume(make(deferrable=True, log_formatter=whisper), context, deferred, event)
    assert printed(log) == ["[base] one"]
    assert "printed when it has ended" in log.text


def test_a_formatter_of_a_module_travels(make, client, context, log, triggerer):
    deferred = defer(make(deferrable=True, log_formatter=shout), context)
    client.script = [s.state(s.S.RUNNING), s.lines("one"), s.end()]
    triggerer.run(deferred.trigger)
    assert "base: ONE" in log.lines


def test_an_execution_that_has_ended_already_is_settled_at_once(make, client, context):
    client.known[OWN] = s.end(id=OWN.rpartition("/")[2]).execution
    client.script = [s.end()]
    assert make(deferrable=True).execute(context) is None
    assert client.did("release")


def test_a_kill_before_the_deferral_is_settled_in_the_worker(make, client, context):
    context["ti"].states = {context["ti"].run_id: {"task": "failed"}}
    operator = make(deferrable=True)
    client.refusals = [operator.on_kill]
    with pytest.raises(ex.RemotePodKilled):
        operator.execute(context)
    assert client.did("cancel")


def test_a_kill_after_the_deferral_is_settled_in_the_worker(make, client, context, triggerer):
    deferred = defer(make(deferrable=True), context)
    client.script = [s.state(s.S.RUNNING), s.end()]
    event = triggerer.run(deferred.trigger)
    context["ti"].states = {context["ti"].run_id: {"task": "failed"}}
    operator = make(deferrable=True)
    client.script = [operator.on_kill, s.end()]
    with pytest.raises(ex.RemotePodKilled):
        resume(operator, context, deferred, event)


@pytest.mark.parametrize("moment", ["as it comes back", "while it settles the end"])
def test_a_worker_that_is_drained_when_the_task_is_back_has_no_line_repeated(make, client, context, triggerer, moment):
    deferred = defer(make(deferrable=True), context)
    client.script = [s.state(s.S.RUNNING), s.lines("one"), s.end()]
    event = triggerer.run(deferred.trigger)

    drained = make(deferrable=True)
    client.script = [drained.on_kill, s.end()]
    if moment == "as it comes back":
        drained.on_kill()
    with pytest.raises(AirflowRescheduleException):
        resume(drained, context, deferred, event)
    assert not client.did("cancel")

    # Airflow forgets on a reschedule that the task was deferred.
    context["task_reschedule_count"] = 1
    client.known[OWN] = s.execution(s.S.SUCCEEDED, id=OWN.rpartition("/")[2], outcome=s.succeeded())
    client.script = [s.end()]
    assert make(deferrable=True).execute(context) is None
    assert client.watched[-1]["cursor"] == b"end"
    assert client.did("release")


def test_an_execution_that_is_gone_at_the_reentry_fails_the_task(make, client, context, triggerer):
    deferred = defer(make(deferrable=True), context)
    client.script = [s.state(s.S.RUNNING), s.end()]
    event = triggerer.run(deferred.trigger)
    client.known.clear()
    with pytest.raises(ex.RemotePodLost):
        resume(make(deferrable=True), context, deferred, event)


def test_a_pod_that_cannot_be_read_any_more_is_settled_by_its_name(make, client, context, triggerer, monkeypatch):
    deferred = defer(make(deferrable=True), context)
    client.script = [s.state(s.S.RUNNING), s.end()]
    event = triggerer.run(deferred.trigger)
    monkeypatch.setattr("podbroker.airflow.pod_lifecycle.pod_of", lambda _: None)
    client.script = [s.end()]
    assert resume(make(deferrable=True), context, deferred, event) is None
    assert client.did("release")


def test_on_kill_action_keep_pod_is_told_to_the_trigger(make, context):
    assert defer(make(deferrable=True, on_kill_action="keep_pod"), context).trigger.keep_on_kill


def test_get_logs_false_prints_no_line(make, client, context, log, triggerer):
    deferred = defer(make(deferrable=True, get_logs=False), context)
    assert deferred.trigger.lines is None
    client.script = [s.state(s.S.RUNNING), s.end()]
    event = triggerer.run(deferred.trigger)
    client.script = [s.end()]
    resume(make(deferrable=True, get_logs=False), context, deferred, event)
    assert printed(log) == []


def test_a_later_try_adopts_and_defers_with_its_own_claim(make, client, context):
    client.features = ("group",)
    running = s.execution(s.S.RUNNING, id="earlier", labels={"in_group": "true", "max_tries": "0"})
    client.known[running.name] = running
    client.attaches_to = running
    context["ti"].try_number = 2
    deferred = defer(make(deferrable=True), context)
    assert (deferred.trigger.name, deferred.trigger.claim) == (running.name, "later claim")


def test_the_row_of_a_trigger_holds_no_credential(make, context, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_PODBROKER_DEFAULT",
        '{"conn_type": "podbroker", "host": "127.0.0.1", "password": "sesame", "extra": {"ca_file": "/ca.pem"}}',
    )
    deferred = defer(make(deferrable=True, env_vars={"PASSWORD": "open"}), context)
    row = json.dumps([*deferred.trigger.serialize(), deferred.kwargs])
    assert "sesame" not in row
    assert "open" not in row
    assert deferred.trigger.podbroker_conn_id == "podbroker_default"


@pytest.mark.parametrize("wanted", ["True", "False"])
def test_the_default_is_airflows_option(wanted):
    program = "from podbroker.airflow import RemotePodOperator as R; print(R(task_id='t', target='x').deferrable)"
    environment = {**os.environ, "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": wanted}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [wanted]


def test_the_example_of_the_page_runs():
    (example,) = (
        code for code in re.findall(r"```python\n(.*?)```", page("airflow.md"), re.DOTALL) if "deferrable" in code
    )
    names: dict[str, object] = {}
    exec(example, names)  # noqa: S102 -- of our own page
    assert names["task"].deferrable
