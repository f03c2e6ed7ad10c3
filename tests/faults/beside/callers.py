"""Rows that break a caller or its connection."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import podbroker
from e2e.following import has_line
from e2e.manifests import numbered, shell
from e2e.proxy import Proxy
from faults.pods import LONG, SLOW
from faults.row import Length, Row

if TYPE_CHECKING:
    from faults.stage import Stage


def connection_cut(stage: Stage) -> None:
    broker = stage.broker()
    proxy = stage.closing.enter_context(Proxy(upstream=("127.0.0.1", broker.port)))
    reader = stage.start(stage.client_at(proxy.port), SLOW)
    for number in range(20, 400, 20):
        reader.until(has_line(f"line {number}"))
        proxy.cut()
    reader.to_end()


def connection_silent(stage: Stage) -> None:
    broker = stage.broker()
    proxy = stage.closing.enter_context(Proxy(upstream=("127.0.0.1", broker.port)))
    reader = stage.start(stage.client_at(proxy.port), LONG, until="line 50")
    # No reset and no end, as a firewall that has forgotten the connection.
    proxy.hold()
    time.sleep(40)
    proxy.release()
    reader.to_end()


def stops_reading(stage: Stage) -> None:
    script = "filler=$(head -c 1000 /dev/zero | tr '\\0' x); " + numbered(20000, prefix="$filler")
    client = stage.broker().client()
    name = stage.submit(client, shell(script))
    reader = stage.read(client, name)
    reader.until(lambda story: story.lines)
    reader.pause()
    time.sleep(60)
    reader.go_on()
    reader.to_end()


_OTHER_CALLER: Final = """
import podbroker, sys
with podbroker.Client(sys.argv[1]) as client, client.watch(sys.argv[2]) as watch:
    for event in watch:
        if isinstance(event, podbroker.LogChunk):
            print(len(event.lines), flush=True)
"""


def client_killed(stage: Stage) -> None:
    broker = stage.broker()
    name = stage.submit(broker.client(), SLOW)
    command = [sys.executable, "-c", _OTHER_CALLER, broker.address, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        other.kill()
    # The pod goes on, and the next caller gets everything.
    stage.read(broker.client(), name).to_end()


def client_goes_on(stage: Stage) -> None:
    broker = stage.broker()
    name = stage.submit(broker.client(), SLOW)
    whole = stage.read(broker.client(), name)
    cursor = b""
    pieces: list[Any] = []
    for number in range(50, 400, 50):
        reader = stage.read(broker.client(), name, cursor=cursor)
        reader.until(has_line(f"line {number}"))
        reader.stop()
        cursor = reader.cursor
        pieces += reader.story.events
    last = stage.read(broker.client(), name, cursor=cursor)
    last.to_end()
    # What each of them was told, one after another, must be the whole story.
    last.story.events[:0] = pieces
    whole.to_end()


def two_clients(stage: Stage) -> None:
    brokers = [stage.broker(), stage.broker()]
    clients = [broker.client() for broker in brokers]
    name = stage.submit(clients[0], SLOW)
    stage.submit(clients[1], SLOW)
    for reader in [stage.read(clients[number % 2], name) for number in range(8)]:
        reader.to_end()


def old_try_killed_late(stage: Stage) -> None:
    clients = [stage.broker().client(), stage.broker().client()]
    group = podbroker.Group(group_id="task")
    old = stage.submit(clients[0], SLOW, execution_id="try-1", group=group)
    readers = [stage.read(clients[0], old)]
    readers[0].until(has_line("line 50"))
    claim = clients[0].submit(target=stage.target, execution_id="try-1", group=group, pod=SLOW).claim
    new = stage.submit(clients[1], SLOW, execution_id="try-2", group=group)
    readers.append(stage.read(clients[1], new))
    # The worker of the old try comes to it only now, and asks the broker that it has talked to.
    for act in (clients[0].cancel, clients[0].release):
        try:
            act(old, claim=claim)
            stage.remarks.append("not refused")
        except podbroker.RefusedError as error:
            stage.remarks.append(error.reason)
    for reader in readers:
        reader.to_end()


def released_by_one(stage: Stage) -> None:
    client = stage.broker().client()
    # More than what is under way to a reader that sleeps.
    name = stage.submit(client, shell(numbered(60000, prefix="a line that is somewhat longer than most of them are")))
    first, second = stage.read(client, name), stage.read(client, name)
    second.until(lambda story: story.lines)
    second.pause()
    first.to_end()
    client.release(name)
    second.go_on()
    second.to_end()


def broker_gone_for_good(stage: Stage) -> None:
    broker = stage.broker()
    client = broker.client()
    name = stage.submit(client, SLOW)
    with client.watch(name, retry_for=5) as watch:
        assert watch.poll(60) is not None
        broker.kill()
        try:
            while watch.poll(60) is not None:
                pass
            stage.remarks.append("no error")
        except podbroker.UnavailableError as error:
            stage.remarks.append(f"UnavailableError, since {'a time' if error.since else 'nobody knows when'}")
    stage.await_phase("Succeeded")
    broker.start()
    stage.read(client, name).to_end()


ROWS: Final = (
    Row(fault="client connection cut every 20 lines", play=connection_cut),
    Row(fault="client connection silent for 40 s", play=connection_silent),
    Row(fault="client stops reading for 60 s", play=stops_reading),
    Row(fault="client killed", play=client_killed, length=Length.CORE),
    Row(fault="clients that go on with each other's cursor", play=client_goes_on),
    Row(fault="two brokers and eight clients on one execution", play=two_clients),
    Row(fault="old try's kill after the new try attached", play=old_try_killed_late, length=Length.CORE),
    Row(fault="release by one of two watchers", play=released_by_one),
    Row(fault="broker gone for longer than the client waits", play=broker_gone_for_good),
)
