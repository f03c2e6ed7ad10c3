"""The trigger: what it prints, what it says, and what it does when it is stopped."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time

import pytest
import scripted as s
from triggers import Listener, hear, shout, stumble

from podbroker import ContainerRole, InvalidCursorError, NotAllowedError, UnavailableError
from podbroker.airflow import follower as module
from podbroker.airflow import trigger_end
from podbroker.airflow._compat import ExecutionMode
from podbroker.airflow.follower import Follower
from podbroker.airflow.lines import LinesAway, LineSpec
from podbroker.airflow.trigger import RemotePodTrigger

NAME = "targets/somewhere/executions/own"


def spec(**kwargs):
    arguments = {
        "base_container": "base",
        "containers": True,
        "init_containers": True,
        "prefix": True,
        "formatter": None,
        "callbacks": [],
        "progress": None,
    }
    return LineSpec.of(**arguments | kwargs).to_json()


def trigger(**kwargs):
    arguments = {
        "name": NAME,
        "claim": "claim",
        "podbroker_conn_id": "podbroker_default",
        "pod_name": "pod-1",
        "pod_namespace": "there",
        "lines": spec(),
        "began": time.time(),
    }
    return RemotePodTrigger(**arguments | kwargs)


@pytest.fixture(autouse=True)
def _heard():
    Listener.heard.clear()


def printed(log):
    return [text for text in log.lines if text.startswith("[")]


def test_lines_of_all_containers_are_printed_as_they_come(triggerer, client, log):
    init = ContainerRole.INIT
    client.script = [
        s.state(s.S.PENDING),
        s.started(),
        s.lines("migrating", name="setup", role=init),
        s.state(s.S.RUNNING),
        s.lines("one", "two"),
        s.lines("proxied", name="side"),
        lambda: log.info("the pod works still"),
        s.lines("three"),
        s.end(),
    ]
    event = triggerer.run(trigger())
    lines = ["[setup] migrating", "[base] one", "[base] two", "[side] proxied", "the pod works still", "[base] three"]
    assert [text for text in log.lines if text in lines] == lines
    assert event["status"] == "success"
    assert event["complete"]
    assert (event["name"], event["namespace"]) == ("pod-1", "there")
    assert triggerer.many.followed == [{"name": NAME, "cursor": b"", "logs": True, "containers": ()}]
    assert triggerer.many.follows[0].closed
    assert not client.did("release"), "the worker has not settled it yet"


def test_the_event_says_nothing_of_the_result(triggerer, client):
    client.script = [s.state(s.S.RUNNING), s.result(b'"a secret"'), s.end()]
    assert "secret" not in json.dumps(triggerer.run(trigger()))


def test_a_failure_is_said_and_not_judged(triggerer, client):
    client.script = [s.state(s.S.RUNNING), s.end(s.failed())]
    event = triggerer.run(trigger())
    assert (event["status"], event["complete"]) == ("failed", True)
    assert not client.did("cancel")


def test_nothing_is_asked_for_where_no_lines_are_wanted(triggerer, client):
    client.script = [s.state(s.S.RUNNING), s.end()]
    assert triggerer.run(trigger(lines=None))["complete"]
    assert triggerer.many.followed[0]["logs"] is False


def test_a_formatter_and_callbacks_come_along_by_name(triggerer, client, log):
    client.known[NAME] = s.execution(s.S.RUNNING)
    client.script = [s.state(s.S.RUNNING), s.lines("one"), s.end()]
    lines = spec(formatter=shout, callbacks=[Listener], progress=hear)
    assert json.loads(json.dumps(lines)) == lines
    triggerer.run(trigger(lines=lines))
    assert "base: ONE" in log.lines
    first, second = Listener.heard
    assert first == {"line": "one"}
    assert (second["line"], second["mode"], second["container_name"]) == ("one", ExecutionMode.ASYNC, "base")
    assert second["pod"].metadata.name == "pod-1"
    assert second["client"].read_namespaced_pod("pod-1", "there") is not None
    client.log = [s.lines("one")]
    assert second["client"].read_namespaced_pod_log("pod-1", "there") == "one\n"
    assert client.watched[-1]["containers"] == ("base",)


def test_users_code_runs_beside_the_event_loop(triggerer, client, monkeypatch):
    import threading

    threads = []
    monkeypatch.setattr("triggers.shout", lambda _, text: threads.append(threading.current_thread()) or text)
    client.script = [s.state(s.S.RUNNING), s.lines("one"), s.end()]
    triggerer.run(trigger(lines={**spec(), "formatter": "triggers:shout"}))
    assert threads
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize("formatter", [lambda _, text: text, json.JSONEncoder().encode])
def test_code_that_only_this_process_has_does_not_travel(formatter):
    with pytest.raises(LinesAway, match="log_formatter"):
        spec(formatter=formatter)


def test_code_that_the_triggerer_cannot_import_leaves_the_lines_to_the_worker(triggerer, client, log):
    client.script = [s.state(s.S.RUNNING), s.end()]
    event = triggerer.run(trigger(lines={**spec(), "formatter": "of_the_workers_only:shout"}, cursor="Zm9v"))
    assert triggerer.many.followed[0]["logs"] is False
    assert (event["complete"], event["cursor"]) == (False, "Zm9v")
    assert "of_the_workers_only" in log.text


def test_a_large_chunk_lets_the_loop_run_in_between(triggerer, client, log):
    turns = []

    async def count():
        while True:
            turns.append(len(log.records))
            await asyncio.sleep(0)

    client.script = [s.state(s.S.RUNNING), s.lines(*map(str, range(1000))), s.end()]

    async def main():
        counting = asyncio.create_task(count())
        made = triggerer.make(trigger())
        assert [event async for event in made.run()]
        counting.cancel()

    asyncio.run(main())
    steps = [after - before for before, after in itertools.pairwise(turns)]
    assert len(printed(log)) == 1000
    assert max(steps) <= module.LINES_AT_ONCE + 5


def test_the_next_triggerer_goes_on_after_the_last_line_of_one_that_was_stopped(triggerer, client, log):
    triggerer.state = "deferred"
    client.script = [s.state(s.S.RUNNING), s.lines("one", "two", cursor=b"after two")]
    triggerer.stop(trigger())
    assert triggerer.many.follows[0].closed
    assert not client.did("cancel")

    client.script = [s.state(s.S.RUNNING), s.lines("three"), s.end()]
    assert triggerer.run(trigger())["complete"]
    assert [followed["cursor"] for followed in triggerer.many.followed] == [b"", b"after two"]
    assert printed(log) == ["[base] one", "[base] two", "[base] three"]
    assert "may come again" not in log.text
    assert triggerer.xcoms == {}, "the place is of no use any more"


def test_a_line_that_is_half_read_is_read_anew_by_the_next_triggerer(triggerer, client, log):
    triggerer.state = "deferred"
    whole = s.lines("one", cursor=b"after one")
    half = s.lines(s.line("be", partial=True), cursor=b"in between")
    client.script = [s.state(s.S.RUNNING), whole, half]
    triggerer.stop(trigger())
    client.script = [s.state(s.S.RUNNING), s.lines("begun"), s.end()]
    triggerer.run(trigger())
    assert triggerer.many.followed[1]["cursor"] == b"after one"
    assert printed(log) == ["[base] one", "[base] begun"]


def test_a_triggerer_that_was_killed_leaves_a_place_that_is_behind_and_the_next_one_says_so(
    triggerer, client, log, monkeypatch
):
    monkeypatch.setattr("podbroker.airflow.position.SAVE_SECONDS", 0.0)
    client.script = [
        s.state(s.S.RUNNING),
        s.lines("one", cursor=b"1"),
        s.lines("two", cursor=b"2"),
        NotAllowedError("killed"),
    ]
    # It is neither stopped nor does it end: what it has kept by then is all there is.
    made = triggerer.make(trigger())

    async def main():
        with pytest.raises(NotAllowedError):
            await Follower(made).follow()

    asyncio.run(main())
    client.script = [s.state(s.S.RUNNING), s.lines("three"), s.end()]
    triggerer.run(trigger())
    assert triggerer.many.followed[1]["cursor"] == b"2"
    assert "lines from the last seconds before may come again" in log.text


def test_the_first_place_of_a_process_is_kept_at_once(triggerer, client, monkeypatch):
    monkeypatch.setattr("podbroker.airflow.position._process.has_asked", False)
    monkeypatch.setattr("podbroker.airflow.position.FIRST_SECONDS", 60.0)
    for kept in ([False], []):
        client.script = [s.state(s.S.RUNNING), s.lines("one"), s.lines("two"), s.end()]
        triggerer.run(trigger())
        assert triggerer.kept == kept
        assert triggerer.xcoms == {}
        triggerer.kept.clear()


def test_a_triggerer_that_begins_late_without_a_place_says_that_lines_may_come_again(triggerer, client, log):
    client.script = [s.state(s.S.RUNNING), s.end()]
    triggerer.run(trigger(began=time.time() - 60))
    assert "lines from the beginning may come again" in log.text


def test_the_place_of_another_trigger_is_not_used(triggerer, client):
    client.script = [s.state(s.S.RUNNING), s.lines("one", cursor=b"1")]
    triggerer.stop(trigger(), trigger_id=1)
    client.script = [s.state(s.S.RUNNING), s.end()]
    triggerer.run(trigger(cursor="Zm9v"), trigger_id=2)
    assert triggerer.many.followed[1]["cursor"] == b"foo"


def test_a_place_that_the_broker_does_not_take_costs_repeated_lines_only(triggerer, client, log):
    client.script = [InvalidCursorError("damaged"), s.state(s.S.RUNNING), s.lines("one"), s.end()]
    assert triggerer.run(trigger(cursor="Zm9v"))["complete"]
    assert [followed["cursor"] for followed in triggerer.many.followed] == [b"foo", b""]
    assert "may be printed again" in log.text


def test_a_user_who_kills_a_deferred_task_ends_its_pod_and_sees_its_last_lines(triggerer, client, log):
    client.script = [s.state(s.S.RUNNING), s.lines("working")]
    client.after_cancel = [s.lines("cleaning up"), s.end(s.failed(s.FailureClass.CANCELLED_BY_CALLER))]
    triggerer.stop(trigger(), kill=True)
    ((name, claim, reason),) = client.did("cancel")
    assert (name, claim) == (NAME, "claim")
    assert "deferred" in reason
    assert printed(log) == ["[base] working", "[base] cleaning up"]
    assert client.did("release")
    assert triggerer.xcoms == {}


def test_a_triggerer_that_was_taken_for_dead_leaves_the_pod_to_the_one_that_has_the_task(triggerer, client):
    triggerer.state = "deferred"
    client.script = [s.state(s.S.RUNNING)]
    triggerer.stop(trigger(), kill=True)
    assert not client.did("cancel")


def test_a_kill_of_a_task_that_others_go_on_with_leaves_the_outcome_to_them(triggerer, client):
    triggerer.state = "queued"
    client.script = [s.state(s.S.RUNNING)]
    client.after_cancel = [s.end(s.failed(s.FailureClass.CANCELLED_BY_CALLER))]
    triggerer.stop(trigger(), kill=True)
    assert client.did("cancel")
    assert not client.did("release")


def test_airflow_may_cancel_again_and_again_while_a_pod_is_ended(triggerer, client, monkeypatch):
    monkeypatch.setattr(trigger_end, "PAUSE_SECONDS", 0.0)
    cancel, refusals = client.cancel, [UnavailableError("away")] * 50

    def refuse(*args, **kwargs):
        if refusals:
            killing.cancel()
            raise refusals.pop()
        return cancel(*args, **kwargs)

    async def main():
        nonlocal killing
        made = triggerer.make(trigger())
        killing = asyncio.create_task(made.on_kill())
        await asyncio.gather(killing, return_exceptions=True)
        await made.cleanup()

    killing: asyncio.Task[None]
    monkeypatch.setattr(client, "cancel", refuse)
    client.script = [s.state(s.S.RUNNING), s.end(s.failed(s.FailureClass.CANCELLED_BY_CALLER))]
    monkeypatch.setattr(module, "KILL_SECONDS", 0.5)
    asyncio.run(main())
    assert client.did("cancel")


def test_a_kill_waits_for_the_last_lines_only_so_long(triggerer, client, monkeypatch):
    monkeypatch.setattr(module, "KILL_SECONDS", 0.05)
    client.script = [s.state(s.S.RUNNING)]
    triggerer.stop(trigger(), kill=True)
    assert client.did("cancel")
    assert not client.did("release")


def test_on_kill_action_keep_pod_leaves_the_pod(triggerer, client):
    client.script = [s.state(s.S.RUNNING)]
    triggerer.stop(trigger(keep_on_kill=True), kill=True)
    assert not client.did("cancel")


def test_a_kill_after_the_event_changes_nothing(triggerer, client):
    async def main():
        client.script = [s.state(s.S.RUNNING), s.end()]
        made = triggerer.make(trigger())
        assert [event async for event in made.run()]
        await made.on_kill()
        await made.cleanup()

    asyncio.run(main())
    assert not client.did("cancel")


def test_a_cancel_is_tried_again_while_the_broker_is_away(triggerer, client, monkeypatch):
    monkeypatch.setattr(trigger_end, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(module, "KILL_SECONDS", 0.5)
    cancel, refusals = client.cancel, [UnavailableError("away"), UnavailableError("away")]

    def refuse(*args, **kwargs):
        if refusals:
            raise refusals.pop()
        return cancel(*args, **kwargs)

    monkeypatch.setattr(client, "cancel", refuse)
    client.script = [s.state(s.S.RUNNING)]
    triggerer.stop(trigger(), kill=True)
    assert client.did("cancel")


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed", "restarting", None])
def test_below_airflow_3_3_a_task_that_was_killed_is_found_out_at_the_end(triggerer, client, monkeypatch, state):
    monkeypatch.setattr(trigger_end, "AIRFLOW_V_3_3_PLUS", False)
    monkeypatch.setattr(trigger_end, "state_from_server", lambda _: state)
    client.script = [s.state(s.S.RUNNING)]
    triggerer.stop(trigger())
    assert client.did("cancel")


@pytest.mark.parametrize("state", ["deferred", "scheduled", "queued", "running", "up_for_retry"])
def test_below_airflow_3_3_a_task_that_goes_on_keeps_its_pod(triggerer, client, monkeypatch, state):
    monkeypatch.setattr(trigger_end, "AIRFLOW_V_3_3_PLUS", False)
    monkeypatch.setattr(trigger_end, "state_from_server", lambda _: state)
    client.script = [s.state(s.S.RUNNING), s.lines("one", cursor=b"1")]
    triggerer.stop(trigger())
    assert not client.did("cancel")
    assert triggerer.xcoms["place"]["exact"]


def test_below_airflow_3_3_a_server_without_an_answer_leaves_the_pod(triggerer, client, monkeypatch):
    def fail(_):
        raise RuntimeError("away")

    monkeypatch.setattr(trigger_end, "AIRFLOW_V_3_3_PLUS", False)
    monkeypatch.setattr(trigger_end, "state_from_server", fail)
    client.script = [s.state(s.S.RUNNING)]
    triggerer.stop(trigger())
    assert not client.did("cancel")


def test_a_task_that_takes_too_long_has_its_pod_cancelled_and_its_last_lines_shown(triggerer, client, log):
    client.script = [s.state(s.S.RUNNING), s.lines("working")]
    client.after_cancel = [s.lines("cleaning up"), s.end(s.failed(s.FailureClass.CANCELLED_BY_CALLER))]
    event = triggerer.run(trigger(deadline=time.time() + 0.1))
    ((_, _, reason),) = client.did("cancel")
    assert "execution_timeout" in reason
    assert event["status"] == "timeout"
    assert printed(log) == ["[base] working", "[base] cleaning up"]


def test_a_pod_that_does_not_end_in_time_is_a_timeout_all_the_same(triggerer, client, monkeypatch):
    monkeypatch.setattr(module, "LATE_SECONDS", 0.05)
    client.script = [s.state(s.S.RUNNING)]
    assert triggerer.run(trigger(deadline=time.time() + 0.05))["status"] == "timeout"


def test_a_pod_that_succeeded_at_the_last_moment_is_a_success(triggerer, client):
    client.script = [s.state(s.S.RUNNING)]
    client.after_cancel = [s.end()]
    assert triggerer.run(trigger(deadline=time.time()))["status"] == "success"


def test_the_event_waits_until_the_scheduler_has_heard_of_the_deferral(triggerer, client, log, monkeypatch):
    monkeypatch.setattr("podbroker.airflow.trigger.HOLD_SECONDS", 0.5)
    client.script = [s.state(s.S.RUNNING), s.lines("one"), s.end()]
    began = time.time()
    triggerer.run(trigger(began=began))
    assert time.time() - began >= 0.5
    assert printed(log) == ["[base] one"]


def test_the_first_trigger_of_a_task_asks_for_no_place(triggerer, client, monkeypatch):
    monkeypatch.setattr("podbroker.airflow.position.FIRST_SECONDS", 60.0)
    triggerer.xcoms["place"] = {"trigger": 1, "name": NAME, "cursor": "Zm9v", "exact": True}
    client.script = [s.state(s.S.RUNNING), s.end()]
    triggerer.run(trigger())
    assert triggerer.many.followed[0]["cursor"] == b""


def test_a_trigger_that_cannot_follow_leaves_it_to_a_worker(triggerer, client, log):
    client.script = [s.state(s.S.RUNNING), s.lines("one", cursor=b"foo"), NotAllowedError("the token is old")]
    event = triggerer.run(trigger())
    assert (event["status"], event["complete"], event["cursor"]) == ("error", False, "Zm9v")
    assert "the token is old" in event["message"]
    assert "the token is old" in log.text


def test_a_connection_that_is_not_there_leaves_it_to_a_worker(triggerer):
    triggerer.error = RuntimeError("no such connection")
    assert triggerer.run(trigger(cursor="Zm9v"))["cursor"] == "Zm9v"


def test_a_worker_that_has_to_go_on_finds_the_result_ahead(triggerer, client):
    client.script = [
        s.state(s.S.RUNNING),
        s.lines("one", cursor=b"foo"),
        s.result(b"1"),
        s.lines("two", cursor=b"later"),
        NotAllowedError("the token is old"),
    ]
    assert triggerer.run(trigger())["cursor"] == "Zm9v"


def test_code_of_the_author_that_fails_leaves_the_rest_to_a_worker_and_is_said_once(triggerer, client, log):
    texts = [*map(str, range(60)), "stone", "sand"]
    chunk = s.lines(*texts, cursor=b"whole chunk")
    client.script = [s.state(s.S.RUNNING), chunk]
    event = triggerer.run(trigger(lines=spec(formatter=stumble)))
    assert [text for text in log.lines if text.startswith("base: ")] == [f"base: {text}" for text in texts[:60]]
    assert base64.b64decode(event["cursor"]) == chunk.cursor_after(60)
    assert (event["status"], event["complete"], event["to_worker"]) == ("error", False, True)
    assert event["message"] == "ValueError", "the event is stored, and the text may quote a line"
    assert log.text.count("base stumbled") == 1


def test_what_fails_in_the_middle_of_a_line_goes_on_before_that_line(triggerer, client):
    pieces = [s.line("sto", partial=True), s.line("ne", continues=True)]
    chunk = s.lines("first", *pieces, "last")
    client.script = [s.state(s.S.RUNNING), chunk]
    event = triggerer.run(trigger(lines=spec(formatter=stumble)))
    assert base64.b64decode(event["cursor"]) == chunk.cursor_after(1)


def test_what_fails_at_the_end_of_a_half_read_line_is_told_apart_too(triggerer, client, log):
    first = s.lines("first", cursor=b"after first")
    client.script = [s.state(s.S.RUNNING), first, s.lines(s.line("stone", partial=True)), s.stream_end()]
    event = triggerer.run(trigger(lines=spec(formatter=stumble)))
    assert event["to_worker"]
    assert base64.b64decode(event["cursor"]) == b"after first"
    assert log.text.count("base stumbled") == 1


def test_a_broker_that_fails_a_callback_is_no_fault_of_the_author(triggerer, client):
    client.script = [s.state(s.S.RUNNING), s.lines("one"), s.end()]
    # The callback gets the pod, and there is none.
    event = triggerer.run(trigger(lines=spec(callbacks=[Listener])))
    assert (event["status"], event.get("to_worker")) == ("error", None)
    assert "no such execution" in event["message"]
