"""Nobody prints into a socket that nobody reads, and nobody ends before it was read."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading

import pytest
import scripted as s
from test_trigger import NAME, trigger

from podbroker.airflow.backlog import drained, unread

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
