"""The broker hangs, is killed again and again, or is read too slowly."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import podbroker
from e2e.following import Story, collect, ended, follow, has_line
from e2e.manifests import numbered, shell
from e2e.proxy import Proxy

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace

pytestmark = pytest.mark.timeout(600)

TARGET = "local"


def test_every_line_arrives_once_although_the_broker_hangs(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = client.submit(target=TARGET, execution_id="hang", pod=shell(numbered(400, pause="0.03"))).execution.name
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("line 50"), within=120)
        broker.signal(signal.SIGSTOP)
        while (event := watch.poll(20)) is not None:
            story.add(event)
        broker.signal(signal.SIGCONT)
        collect(watch, story, ended, within=120)

    assert story.text() == [f"line {i}" for i in range(1, 401)]
    assert not story.gaps


def test_a_watch_goes_on_although_the_connection_is_silent(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    with (
        Proxy(upstream=("127.0.0.1", broker.port)) as proxy,
        podbroker.Client(f"http://127.0.0.1:{proxy.port}") as client,
    ):
        name = client.submit(target=TARGET, execution_id="deaf", pod=shell(numbered(400, pause="0.03"))).execution.name
        with client.watch(name) as watch:
            story = collect(watch, Story(), has_line("line 50"), within=120)
            # No reset and no end: as a firewall that has forgotten the connection.
            proxy.hold()
            while (event := watch.poll(5)) is not None:
                story.add(event)
            proxy.release()
            collect(watch, story, ended, within=240)

    assert story.text() == [f"line {i}" for i in range(1, 401)]
    assert not story.gaps


def test_every_line_arrives_once_over_ten_kills(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = client.submit(target=TARGET, execution_id="ten", pod=shell(numbered(1500, pause="0.02"))).execution.name
    story = Story()
    with client.watch(name) as watch:
        for number in range(100, 1100, 100):
            collect(watch, story, has_line(f"line {number}"), within=120)
            broker.kill()
            broker.start()
        collect(watch, story, ended, within=240)

    assert story.text() == [f"line {i}" for i in range(1, 1501)]
    assert not story.gaps


def test_a_reader_that_stops_reading_costs_the_broker_no_memory_and_no_line(
    namespace: Namespace, brokers: Brokers
) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    # 60 MB; the kubelet keeps two and a half of them. The rest is the broker's to hold, or to say that it is lost.
    script = "filler=$(head -c 3000 /dev/zero | tr '\\0' x); " + numbered(20000, prefix="$filler")
    name = client.submit(target=TARGET, execution_id="slow", pod=shell(script)).execution.name
    with client.watch(name) as watch:
        story = collect(watch, Story(), lambda story: story.lines, within=120)
        follow(client, name, within=240)
        collect(watch, story, ended, within=240)

    numbers = [int(line.rsplit(" ", 1)[1]) for line in story.text()]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 20000 or story.gaps, "lines are missing and nobody says so"
    assert _peak_memory(broker.pid) < 300_000_000


def _peak_memory(pid: int) -> int:
    """The most memory that the process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
