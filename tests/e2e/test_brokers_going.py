"""Brokers come and go; those who follow an execution notice nothing."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

import podbroker
from e2e.following import Story, collect, ended, follow, has_line
from e2e.manifests import UNTIL_TOLD, numbered, shell
from e2e.proxy import Proxy
from e2e.waiting import wait_for
from e2e.wire import Wire, reason_of
from podbroker import ExecutionState

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace
    from podbroker import Client

TARGET = "local"
#: About 12 seconds of lines.
SLOW = numbered(400, pause="0.03")
SLOW_LINES = [f"line {i}" for i in range(1, 401)]


def test_every_line_arrives_once_although_the_broker_is_killed_twice(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = client.submit(target=TARGET, execution_id="killed", pod=shell(SLOW)).execution.name

    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("line 60"), within=90)
        broker.kill()
        broker.start()
        collect(watch, story, has_line("line 200"), within=90)
        broker.kill()
        broker.start()
        collect(watch, story, ended, within=120)

    assert story.text() == SLOW_LINES
    assert not story.gaps
    assert story.outcome.exit_code == 0


def test_the_end_is_seen_although_it_came_while_no_broker_ran(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = client.submit(
        target=TARGET, execution_id="away", pod=shell("echo one; sleep 2; echo two; exit 4")
    ).execution.name
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("one"), within=90)
        broker.kill()
        wait_for("the pod to end", lambda: namespace.only_pod["status"]["phase"] == "Failed")
        broker.start()
        collect(watch, story, ended, within=90)

    assert story.text() == ["one", "two"]
    assert story.outcome.exit_code == 4


def test_every_line_arrives_once_although_the_connection_breaks_again_and_again(
    namespace: Namespace, brokers: Brokers
) -> None:
    broker = brokers.start(namespace=namespace)
    with Proxy(upstream=("127.0.0.1", broker.port)) as proxy, client_through(proxy) as client:
        name = client.submit(target=TARGET, execution_id="cut", pod=shell(SLOW)).execution.name
        story = Story()
        with client.watch(name) as watch:
            for number in range(20, 400, 20):
                collect(watch, story, has_line(f"line {number}"), within=90)
                assert proxy.cut() > 0
            collect(watch, story, ended, within=90)

    assert story.text() == SLOW_LINES
    assert not story.gaps


def test_every_line_arrives_once_although_the_api_server_breaks_again_and_again(
    namespace: Namespace, brokers: Brokers
) -> None:
    with brokers.api_server_proxy() as proxy:
        client = brokers.start(namespace=namespace, api_server=proxy).client()
        name = client.submit(target=TARGET, execution_id="api", pod=shell(SLOW)).execution.name
        story = Story()
        cuts = 0
        with client.watch(name) as watch:
            for number in range(40, 400, 40):
                collect(watch, story, has_line(f"line {number}"), within=90)
                # None is open while the broker waits before it tries again; lines may still be on their way then.
                cuts += proxy.cut()
            collect(watch, story, ended, within=90)

    assert cuts >= 5
    assert story.text() == SLOW_LINES
    assert not story.gaps


def test_a_draining_broker_sends_its_watchers_to_the_next_one(namespace: Namespace, brokers: Brokers) -> None:
    first, second = brokers.start(namespace=namespace), brokers.start(namespace=namespace)
    with Proxy(upstream=("127.0.0.1", first.port)) as proxy, client_through(proxy) as client:
        name = client.submit(target=TARGET, execution_id="drain", pod=shell(SLOW)).execution.name
        with client.watch(name) as watch:
            story = collect(watch, Story(), has_line("line 100"), within=90)
            proxy.upstream = ("127.0.0.1", second.port)
            first.signal(signal.SIGTERM)
            collect(watch, story, ended, within=90)

    assert first.wait(within=60) == 0
    assert story.text() == SLOW_LINES
    assert not story.gaps


def test_a_draining_broker_ends_its_streams_with_unavailable_and_the_reason(
    namespace: Namespace, brokers: Brokers
) -> None:
    broker = brokers.start(namespace=namespace)
    name = broker.client().submit(target=TARGET, execution_id="reason", pod=shell(UNTIL_TOLD)).execution.name
    with Wire(broker.port) as wire:
        stream = wire.stream("WatchExecution", {"name": name})
        next(iter(stream))
        broker.signal(signal.SIGTERM)

        with pytest.raises(grpc.RpcError) as ended_with:
            for _ in stream:
                pass

    assert ended_with.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(ended_with.value) == "DRAINING"
    assert broker.wait(within=60) == 0


def test_a_second_signal_ends_a_draining_broker_at_once(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    broker.signal(signal.SIGTERM)
    broker.signal(signal.SIGTERM)

    assert broker.wait(within=10) is not None
    again = brokers.start(namespace=namespace)
    assert again.client().server_info().instance


def test_many_follow_one_execution_at_two_brokers_and_all_see_the_same(namespace: Namespace, brokers: Brokers) -> None:
    clients = [brokers.start(namespace=namespace).client() for _ in range(2)]
    name = clients[0].submit(target=TARGET, execution_id="many", pod=shell(SLOW)).execution.name
    go = threading.Barrier(12)

    def watch(number: int) -> list[str]:
        go.wait(timeout=60)
        return follow(clients[number % 2], name, within=180).text()

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(watch, range(12))) == [SLOW_LINES] * 12


def test_an_impatient_watch_gives_up_when_told_to(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = client.submit(target=TARGET, execution_id="patience", pod=shell(UNTIL_TOLD)).execution.name
    with client.watch(name, retry_for=2.0) as watch:
        collect(watch, Story(), has_line("ready"), within=90)
        broker.kill()
        with pytest.raises(podbroker.UnavailableError):
            collect(watch, Story(), ended, within=60)
    broker.start()
    client.cancel(name)
    assert follow(client, name).end.state is ExecutionState.CANCELLED


def client_through(proxy: Proxy) -> Client:
    return podbroker.Client(f"http://127.0.0.1:{proxy.port}")
