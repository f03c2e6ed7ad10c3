"""A decorated task that defers: a later process of the same try makes the same pod, and so regains its claim."""

from __future__ import annotations

from datetime import timedelta

import pytest
import scripted as s
from versions import TaskDeferred, has_deferral_timeouts, task

from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowTaskTimeout, TaskDeferralError, TaskDeferralTimeout
from podbroker.airflow.operator import RemotePodOperator
from podbroker.airflow.script import BOOTSTRAP, INPUT_VARIABLE, SCRIPT_VARIABLE
from podbroker.exceptions import ConflictError

OWN = "targets/somewhere/executions/dag.task.airflow.0193f000-0000-7000-8000-000000000001"
FAILED = {"error": "Trigger failure", "traceback": ["no module named podbroker"]}


@pytest.fixture(autouse=True)
def _short_budgets(monkeypatch):
    monkeypatch.setattr("podbroker.airflow.session.CANCEL_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.session.RELEASE_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.session.ANSWER_SECONDS", 0.0)


@pytest.fixture
def client(client, monkeypatch):
    """Refuse a request that differs from the first one, as the broker does; the pod's name does not count."""
    submit = client.submit

    def strict(**kwargs):
        if client.submits and (kwargs["must_exist"] or OWN in client.known):
            first, again = (request_of(each) for each in (client.submits[0], kwargs))
            if first != again:
                client.submits.append(kwargs)
                raise ConflictError("the request differs", reason="SPEC_MISMATCH")
        return submit(**kwargs)

    monkeypatch.setattr(client, "submit", strict)
    return client


def request_of(submit):
    pod = {**submit["pod"], "metadata": {k: v for k, v in submit["pod"]["metadata"].items() if k != "name"}}
    return pod, submit["labels"], submit["execution_id"]


@pytest.fixture
def calls():
    """Count how often the function of a command was called."""
    return []


@pytest.fixture(params=["function", "command", "arguments"])
def operator(request, log, calls, monkeypatch):
    """Make an operator as each process of the task makes it: anew, from the DAG."""
    monkeypatch.setattr(RemotePodOperator, "log", log)
    timeout = timedelta(seconds=1)
    common = {"target": "somewhere", "deferrable": True, "execution_timeout": timeout}

    def make():
        if request.param == "function":

            @task.remote_pod(image="python:3", env_vars={"MINE": "1"}, **common)
            def my_function(number, *, text=""): ...

            return my_function(7, text="käse").operator

        @task.remote_pod_cmd(image="busybox", args_only=request.param == "arguments", **common)
        def my_function(number, run_id=None):
            calls.append(number)
            return ["echo", str(number), run_id, "{{ run_id }}"]

        return my_function(7).operator

    make.called = 0 if request.param == "function" else 1
    return make


def defer(operator, context):
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    return caught.value


def test_the_function_is_asked_once_and_the_value_is_fetched_at_the_reentry(
    operator, client, context, triggerer, calls
):
    deferred = defer(operator(), context)
    assert len(calls) == operator.called
    client.script = [s.state(s.S.RUNNING), s.end()]
    event = triggerer.run(deferred.trigger)

    client.script = [s.state(s.S.SUCCEEDED), s.end()]
    kwargs = {**deferred.kwargs, "event": event}
    assert operator().resume_execution(deferred.method_name, kwargs, context) is None
    assert len(calls) == operator.called, "what is known by its name is not made again"
    assert len(client.submits) == 1
    assert client.did("release") == [(OWN, "claim")]
    assert not client.did("cancel")


def test_a_trigger_that_failed_leaves_the_pod_to_the_worker_with_its_claim(operator, client, context, log, calls):
    defer(operator(), context)
    client.script = [s.state(s.S.RUNNING), s.lines("one"), s.end()]
    assert operator().resume_execution("__fail__", FAILED, context) is None
    assert [submit["must_exist"] for submit in client.submits] == [False, True]
    assert request_of(client.submits[0]) == request_of(client.submits[1])
    assert len(calls) == 2 * operator.called, "each process asks once"
    assert client.did("release") == [(OWN, "claim")]
    assert not client.did("cancel")
    assert "[base] one" in log.lines


@has_deferral_timeouts
def test_a_trigger_that_airflow_has_timed_out_takes_the_pod_with_it(operator, client, context):
    defer(operator(), context)
    with pytest.raises(TaskDeferralTimeout):
        operator().resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert [submit["must_exist"] for submit in client.submits] == [False, True]
    assert client.did("cancel")[0][:2] == (OWN, "claim")


def test_a_pod_that_is_gone_is_not_made_again(operator, client, context):
    defer(operator(), context)
    client.known.clear()
    with pytest.raises(TaskDeferralError):
        operator().resume_execution("__fail__", FAILED, context)
    assert [submit["must_exist"] for submit in client.submits] == [False, True]
    assert client.known == {}


def test_a_timeout_that_the_trigger_saw_needs_no_function(operator, client, context, triggerer, calls):
    deferred = defer(operator(), context)
    deferred.trigger.deadline = 0.0
    client.script = [s.state(s.S.RUNNING)]
    client.after_cancel = [s.end(s.failed(s.FailureClass.CANCELLED_BY_CALLER))]
    event = triggerer.run(deferred.trigger)
    with pytest.raises(AirflowTaskTimeout):
        operator().resume_execution(deferred.method_name, {**deferred.kwargs, "event": event}, context)
    assert len(calls) == operator.called
    assert client.did("release") == [(OWN, "claim")]


def test_a_function_that_says_something_else_is_followed_without_a_claim(client, context, log, monkeypatch):
    monkeypatch.setattr(RemotePodOperator, "log", log)
    words = iter(["first", "second"])

    @task.remote_pod_cmd(image="busybox", target="somewhere", deferrable=True)
    def command():
        return ["echo", next(words)]

    defer(command().operator, context)
    client.script = [s.state(s.S.RUNNING), s.end(s.failed(exit_code=3))]
    with pytest.raises(ex.RemotePodFailed):
        command().operator.resume_execution("__fail__", FAILED, context)
    assert client.did("release") == [(OWN, "")]


def test_a_dry_run_has_no_context_and_asks_no_function(operator, calls):
    (container,) = operator().build_pod_request_obj().spec.containers
    assert calls == []
    assert BOOTSTRAP not in (container.command or [])


def test_the_pod_of_a_fresh_process_holds_the_function(operator, context):
    (container,) = operator().build_pod_request_obj(context).spec.containers
    if operator.called:
        said = [*(container.command or []), *(container.args or [])]
        assert said == ["echo", "7", "manual__2026-11-21", "manual__2026-11-21"]
    else:
        assert container.command == ["python", "-c", BOOTSTRAP]
        assert [each.name for each in container.env] == ["MINE", SCRIPT_VARIABLE, INPUT_VARIABLE]
