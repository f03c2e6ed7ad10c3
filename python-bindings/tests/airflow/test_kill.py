"""The kill matrix: why the task was told to end, at which moment, and what becomes of its pod and its state."""

from __future__ import annotations

import base64
import os
import signal
import threading
from datetime import datetime, timedelta, timezone

import pytest
import scripted as s

from podbroker.airflow import ending
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowRescheduleException, AirflowTaskTerminated, AirflowTaskTimeout
from podbroker.airflow.kill import NO_ANSWER, Verdict, ask_state, verdict_of
from podbroker.airflow.result import POSITION_KEY
from podbroker.exceptions import InvalidCursorError, UnavailableError

CANCELLING = ["failed", "success", "skipped", "removed", "restarting", None]
DETACHING = ["up_for_retry", "queued", "scheduled", "up_for_reschedule", "deferred", "a word of a later Airflow"]


@pytest.fixture(autouse=True)
def _short_budgets(monkeypatch):
    monkeypatch.setattr("podbroker.airflow.session.CANCEL_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.session.RELEASE_SECONDS", 0.0)
    monkeypatch.setattr(ending, "LAST_LINES_SECONDS", 0.05)


@pytest.fixture
def killed_in_the_middle(make, client):
    """An operator whose on_kill is called while it waits for the next line."""
    operator = make()
    client.script = [s.state(s.S.RUNNING), s.lines("working"), operator.on_kill]
    return operator


def with_state(context, state):
    context["ti"].states = {context["ti"].run_id: {"task": state}}


@pytest.mark.parametrize("state", CANCELLING)
def test_a_task_that_was_really_killed_cancels_its_pod_and_fails(killed_in_the_middle, client, context, state):
    with_state(context, state)
    with pytest.raises(ex.RemotePodKilled):
        killed_in_the_middle.execute(context)
    ((name, claim, reason),) = client.did("cancel")
    assert (name, claim) == (client.watched[0]["name"], "claim")
    assert str(state or "none") in reason
    assert client.watches[0].closed


def test_a_task_instance_that_is_gone_cancels(killed_in_the_middle, client, context):
    context["ti"].states = {}
    with pytest.raises(ex.RemotePodKilled):
        killed_in_the_middle.execute(context)
    assert client.did("cancel")


@pytest.mark.parametrize("state", DETACHING)
def test_a_task_that_someone_else_goes_on_with_leaves_its_pod(killed_in_the_middle, client, context, state):
    with_state(context, state)
    with pytest.raises(ex.RemotePodDetached):
        killed_in_the_middle.execute(context)
    assert not client.did("cancel")
    assert not client.did("release")


def test_a_server_that_fails_to_answer_leaves_the_pod(killed_in_the_middle, client, context):
    context["ti"].states = RuntimeError("the API server is away")
    with pytest.raises(ex.RemotePodDetached, match=NO_ANSWER):
        killed_in_the_middle.execute(context)
    assert not client.did("cancel")


def test_a_supervisor_that_hangs_costs_its_budget_and_no_more(context):
    hanging = threading.Event()
    context["ti"].get_task_states = lambda **_: hanging.wait(60)
    assert ask_state(context, seconds=0.05) == NO_ANSWER
    hanging.set()


def test_a_worker_that_is_drained_leaves_the_pod_and_is_started_again_soon(killed_in_the_middle, client, context):
    with_state(context, "running")
    before = datetime.now(tz=timezone.utc)
    with pytest.raises(AirflowRescheduleException) as caught:
        killed_in_the_middle.execute(context)
    # Later than Airflow's scheduler may hear of the end of this process, or it would fail the task.
    assert timedelta(seconds=15) < caught.value.reschedule_date - before < timedelta(seconds=30)
    assert not client.did("cancel")
    assert not client.did("release")


def test_a_mapped_task_asks_for_its_own_state(killed_in_the_middle, client, context):
    context["ti"].map_index = 3
    context["ti"].states = {context["ti"].run_id: {"task": "running", "task_3": "failed"}}
    with pytest.raises(ex.RemotePodKilled):
        killed_in_the_middle.execute(context)
    assert client.did("cancel")


def test_after_a_drain_the_next_process_goes_on_after_the_last_line(make, client, context, log):
    first = make()
    client.script = [s.state(s.S.RUNNING), s.lines("one", cursor=b"after one"), first.on_kill]
    with pytest.raises(AirflowRescheduleException):
        first.execute(context)

    context["task_reschedule_count"] = 1
    client.script = [s.lines("two"), s.end()]
    make().execute(context)
    assert [submit["must_exist"] for submit in client.submits] == [False, True]
    assert [watched["cursor"] for watched in client.watched] == [b"", b"after one"]
    assert [text for text in log.lines if text.startswith("[base]")] == ["[base] one", "[base] two"]
    assert len(client.known) == 1


@pytest.mark.parametrize(
    "event", [s.result(b"1"), s.notice("RESULT_MISSING", "no file"), s.lines(s.line("be", partial=True))]
)
def test_a_drain_keeps_a_place_before_what_the_next_process_must_see_whole(make, client, context, event):
    first = make(do_xcom_push=True)
    client.script = [s.state(s.S.RUNNING), s.lines("one", cursor=b"after one"), event, first.on_kill]
    with pytest.raises(AirflowRescheduleException):
        first.execute(context)
    assert context["task_state_store"][POSITION_KEY]["cursor"] == base64.b64encode(b"after one").decode()


def test_a_kept_place_that_the_broker_does_not_take_costs_repeated_lines_only(make, client, context, log):
    own = f"targets/somewhere/executions/dag.task.airflow.{context['ti'].id}"
    context["task_reschedule_count"] = 1
    context["task_state_store"][POSITION_KEY] = {"name": own, "cursor": "Zm9v"}
    client.script = [InvalidCursorError("damaged"), s.lines("one"), s.end()]
    make().execute(context)
    assert [watched["cursor"] for watched in client.watched] == [b"foo", b""]
    assert "lines may be printed again" in log.text


@pytest.mark.parametrize("kept", [None, "x", {"name": "another", "cursor": "Zm9v"}, {"name": "own", "cursor": "%"}])
def test_a_kept_place_of_something_else_is_not_used(make, client, context, kept):
    context["task_reschedule_count"] = 1
    if kept is not None:
        own = f"targets/somewhere/executions/dag.task.airflow.{context['ti'].id}"
        if isinstance(kept, dict) and kept["name"] == "own":
            kept["name"] = own
        context["task_state_store"][POSITION_KEY] = kept
    client.script = [s.end()]
    make().execute(context)
    assert client.watched[0]["cursor"] == b""


def test_a_rescheduled_try_whose_execution_was_never_made_makes_it(make, client, context):
    context["task_reschedule_count"] = 1
    client.script = [s.end()]
    make().execute(context)
    assert [submit["must_exist"] for submit in client.submits] == [True, False]


def test_a_kill_before_anything_was_sent_creates_nothing(make, client, context):
    with_state(context, "failed")
    operator = make()
    operator.on_kill()
    with pytest.raises(ex.RemotePodKilled):
        operator.execute(context)
    assert [submit["must_exist"] for submit in client.submits] == [True]
    assert client.known == {}


def test_a_kill_before_anything_was_sent_ends_what_an_earlier_process_of_the_try_started(make, client, context):
    own = f"dag.task.airflow.{context['ti'].id}"
    client.known = {f"targets/somewhere/executions/{own}": s.execution(s.S.RUNNING, id=own)}
    with_state(context, "failed")
    operator = make()
    operator.on_kill()
    with pytest.raises(ex.RemotePodKilled):
        operator.execute(context)
    assert client.did("cancel")[0][0] == f"targets/somewhere/executions/{own}"


def test_a_kill_while_the_submit_has_no_answer_settles_it_before_it_cancels(make, client, context):
    with_state(context, "failed")
    operator = make()

    def lose_the_answer():
        operator.on_kill()
        raise UnavailableError("the connection broke")

    client.refusals = [lose_the_answer]
    with pytest.raises(ex.RemotePodKilled):
        operator.execute(context)
    first, settling = client.submits
    assert first == settling
    assert client.did("cancel")


def test_a_drain_while_the_broker_is_away_starts_the_task_again_later(make, client, context):
    with_state(context, "running")
    operator = make()

    def nobody_there():
        operator.on_kill()
        raise UnavailableError("nobody there")

    client.refusals = [nobody_there]
    with pytest.raises(AirflowRescheduleException):
        operator.execute(context)
    assert len(client.submits) == 1


def test_a_pod_that_succeeded_is_a_success_although_the_kill_came_with_its_end(make, client, context):
    operator = make()

    class EndWithKill(list):
        def pop(self, at):
            step = super().pop(at)
            if not self:
                operator.on_kill()
            return step

    client.script = EndWithKill([s.state(s.S.RUNNING), s.end()])
    assert operator.execute(context) is None
    assert client.did("release")


def test_the_last_lines_of_a_cancelled_pod_are_shown_and_its_end_is_acknowledged(
    killed_in_the_middle, client, context, log
):
    with_state(context, "failed")
    from podbroker import FailureClass

    client.after_cancel = [s.lines("cleaning up"), s.end(s.failed(FailureClass.CANCELLED_BY_CALLER))]
    with pytest.raises(ex.RemotePodKilled):
        killed_in_the_middle.execute(context)
    assert "[base] cleaning up" in log.lines
    assert client.did("release")


def test_a_cancel_that_fails_is_said_and_the_task_ends_all_the_same(killed_in_the_middle, client, context, log):
    with_state(context, "failed")
    client.cancel_error = UnavailableError("nobody there")
    with pytest.raises(ex.RemotePodKilled):
        killed_in_the_middle.execute(context)
    assert "could not be cancelled and may run on" in log.text


def test_on_kill_action_keep_pod_leaves_the_pod_of_a_killed_task(make, client, context):
    with_state(context, "failed")
    operator = make(on_kill_action="keep_pod")
    client.script = [operator.on_kill]
    with pytest.raises(ex.RemotePodKilled, match="left running"):
        operator.execute(context)
    assert not client.did("cancel")


def test_execution_timeout_cancels_and_stays_a_timeout(make, client, context):
    operator = make()
    client.script = [s.state(s.S.RUNNING), AirflowTaskTimeout("Timeout")]
    with pytest.raises(AirflowTaskTimeout):
        operator.execute(context)
    ((_, _, reason),) = client.did("cancel")
    assert "execution_timeout" in reason


def test_execution_timeout_during_the_submit_settles_it_and_cancels(make, client, context):
    client.refusals = [AirflowTaskTimeout("Timeout")]
    with pytest.raises(AirflowTaskTimeout):
        make().execute(context)
    assert len(client.submits) == 2
    assert client.did("cancel")


def test_the_signal_handler_of_airflow_2_raises_and_the_kill_is_settled_all_the_same(make, client, context):
    with_state(context, "failed")
    operator = make()

    def as_airflow_2_does():
        operator.on_kill()
        raise AirflowTaskTerminated("Task received SIGTERM signal")

    client.script = [s.state(s.S.RUNNING), as_airflow_2_does]
    with pytest.raises(ex.RemotePodKilled):
        operator.execute(context)
    assert client.did("cancel")


def test_ctrl_c_is_no_cancel(make, client, context):
    client.script = [s.state(s.S.RUNNING), KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        make().execute(context)
    assert not client.did("cancel")


def test_on_kill_asks_nobody(make, client, context):
    operator = make()
    asked = []
    context["ti"].get_task_states = lambda **_: asked.append(threading.current_thread()) or {}

    def handle_the_signal():
        operator.on_kill()
        assert not asked

    client.script = [handle_the_signal]
    with pytest.raises(ex.RemotePodKilled):
        operator.execute(context)
    (thread,) = asked
    assert thread is not threading.main_thread()


def test_a_real_sigterm_as_the_task_runner_installs_it(make, client, context):
    with_state(context, "failed")
    operator = make()
    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        client.script = [s.state(s.S.RUNNING), lambda: os.kill(os.getpid(), signal.SIGTERM)]
        with pytest.raises(ex.RemotePodKilled):
            operator.execute(context)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert client.did("cancel")


def test_every_state_of_airflow_has_a_verdict():
    from airflow.utils.state import TaskInstanceState

    judged = {state.value: verdict_of(state.value) for state in TaskInstanceState}
    assert {state for state, verdict in judged.items() if verdict is Verdict.RESCHEDULE} == {"running"}
    assert {state for state, verdict in judged.items() if verdict is Verdict.CANCEL} >= {"failed", "success", "removed"}


def test_airflow_2_is_asked_in_its_own_words(context):
    class TaskInstance:
        def current_state(self) -> str:
            return "failed"

    context["ti"] = TaskInstance()
    assert ask_state(context) == "failed"
