"""Nobody prints into a socket that nobody reads, and nobody ends before it was read."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import scripted as s
from test_trigger import NAME, trigger
from versions import on_airflow_3

from podbroker.airflow import position
from podbroker.airflow.backlog import drained, is_taken, unread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a socket holds")


@pytest.fixture
def supervisor():
    """The other end of the socket that the process logs into, as Airflow sets it up."""
    ours, theirs = socket.socketpair()
    handler = logging.StreamHandler(ours.makefile("w", buffering=1))
    logging.getLogger().addHandler(handler)
    yield theirs
    logging.getLogger().removeHandler(handler)
    ours.close()
    theirs.close()


def test_what_was_not_read_is_counted(supervisor):
    assert unread() == 0
    logging.getLogger().warning("x" * 1000)
    assert unread() >= 1000
    supervisor.recv(4096)
    assert unread() == 0


def test_a_process_that_logs_elsewhere_has_nothing_unread():
    assert unread() == 0


def test_waiting_ends_when_it_takes_too_long(supervisor):
    logging.getLogger().warning("x")
    assert not asyncio.run(drained(to=0, seconds=0.05))
    supervisor.recv(4096)
    assert asyncio.run(drained(to=0, seconds=0.05))


def test_lines_that_nobody_reads_hold_up_their_trigger_and_not_the_loop(supervisor, triggerer, client, monkeypatch):
    """Ten times what the socket holds; a logging call into the full socket would wait for ever."""
    monkeypatch.setattr("podbroker.airflow.trigger.RemotePodTrigger.log", logging.getLogger())
    logging.getLogger().setLevel(logging.INFO)
    client.script = [s.state(s.S.RUNNING), *(s.lines(*["x" * 200] * 100) for _ in range(100)), s.end()]
    received = bytearray()

    def read():
        while b"SUCCEEDED" not in received:
            received.extend(supervisor.recv(4096))

    async def main():
        made = triggerer.make(trigger(name=NAME))
        running = asyncio.ensure_future(anext(made.run()))
        before = -1
        while before != unread() or not before:
            before = unread()
            await asyncio.sleep(0.1)
        assert not running.done()
        reading = threading.Thread(target=read)
        reading.start()
        event = await running
        # Nothing that belongs to the task is left behind.
        assert unread() == 0
        reading.join()
        return event

    assert asyncio.run(main()).payload["status"] == "success"
    assert received.count(b"x" * 200) == 10_000


def test_lines_that_airflow_has_not_read_when_a_triggerer_stops_are_printed_by_the_next_one(
    supervisor, triggerer, client, log, monkeypatch
):
    monkeypatch.setattr("podbroker.airflow.follower.LEAVE_SECONDS", 0.05)
    triggerer.state = "deferred"
    client.script = [
        s.state(s.S.RUNNING),
        s.lines("one", cursor=b"1"),
        s.lines("two", cursor=b"2"),
        lambda: logging.getLogger().warning("what the supervisor does not read"),
        s.lines("three", cursor=b"3"),
    ]
    triggerer.stop(trigger())
    assert unread()
    assert not triggerer.xcoms["place"]["exact"]

    supervisor.recv(4096)
    client.script = [s.state(s.S.RUNNING), s.end()]
    triggerer.run(trigger())
    assert triggerer.many.followed[1]["cursor"] == b"1"
    assert "lines from the last seconds before may come again" in log.text


def test_a_first_line_that_airflow_has_not_read_is_announced_too(supervisor, triggerer, client, log, monkeypatch):
    monkeypatch.setattr("podbroker.airflow.follower.LEAVE_SECONDS", 0.05)
    triggerer.state = "deferred"
    logging.getLogger().warning("what the supervisor does not read")
    client.script = [s.state(s.S.RUNNING), s.lines("one")]
    triggerer.stop(trigger())

    supervisor.recv(4096)
    client.script = [s.state(s.S.RUNNING), s.end()]
    triggerer.run(trigger())
    assert triggerer.many.followed[1]["cursor"] == b""
    assert "lines from the beginning may come again" in log.text


def test_a_trigger_that_has_printed_nothing_has_nothing_unread(supervisor, triggerer, client, monkeypatch):
    """What is unread is that of all triggers of the process."""
    monkeypatch.setattr("podbroker.airflow.follower.LEAVE_SECONDS", 0.05)
    triggerer.state = "deferred"
    logging.getLogger().warning("what another trigger has printed")
    client.script = []
    triggerer.stop(trigger())
    assert triggerer.xcoms == {}
    supervisor.recv(4096)


@on_airflow_3
@pytest.mark.parametrize("reads", [True, False])
def test_the_last_place_is_kept_once_the_supervisor_has_read_it(monkeypatch, reads):
    """Airflow 3.3 hands out no answers while a triggerer stops."""
    monkeypatch.setattr("podbroker.airflow.position.WRITE_SECONDS", 60.0 if reads else 0.1)
    ti = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=-1)
    stopped = SimpleNamespace(task_instance=ti, trigger_id=1)
    received = bytearray()

    async def main():
        ours, theirs = socket.socketpair()
        theirs.settimeout(30.0)
        _, writer = await asyncio.open_connection(sock=ours)

        async def asend(message):
            writer.write(message.model_dump_json().encode())
            await asyncio.Event().wait()

        comms = SimpleNamespace(asend=asend, _async_writer=writer)
        monkeypatch.setattr(position, "trigger_comms", lambda: comms)
        reading = threading.Thread(target=lambda: received.extend(theirs.recv(4096)) if reads else None)
        reading.start()
        began = time.monotonic()
        await position.Position(name=NAME, began=0.0).leave(stopped, b"here", exact=True)
        took = time.monotonic() - began
        reading.join()
        assert is_taken(comms) is reads
        writer.close()
        theirs.close()
        return took

    took = asyncio.run(main())
    assert took < 60.0
    assert (b"podbroker_log_place" in received) is reads
