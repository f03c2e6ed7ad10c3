"""A thousand triggers in one event loop, over the real client: one stream, every line once, and a loop that runs on."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import pytest
import scripted as s
from running import broker_at, lines
from test_trigger import spec, trigger

from podbroker import Client
from podbroker.airflow import follower
from podbroker.airflow.channel import Channel
from podbroker.airflow.trigger import RemotePodTrigger

COUNT = 1000


@pytest.fixture
def channel(monkeypatch):
    with broker_at("127.0.0.1:0") as address, Client(address) as client:
        channel = Channel(client=client, many=client.watch_many())

        async def channel_of(_):
            return channel

        monkeypatch.setattr(follower, "channel_of", channel_of)
        monkeypatch.setattr("podbroker.airflow.trigger.HOLD_SECONDS", 0.0)
        yield channel


def asked(channel):
    return {key: int(count) for key, count in channel.client.get("asked").labels.items() if key != "a"}


def resident():
    gc.collect()
    return next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
    )


async def longest_pause(until):
    """Seconds of the loop's own work between two of its turns; a busy machine adds nothing to them."""
    longest = 0.0
    while not until.is_set():
        before = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - before)
    return longest


def test_a_thousand_triggers_take_one_stream_and_print_each_line_once(channel, monkeypatch):
    log = s.RecordingLog()
    monkeypatch.setattr(RemotePodTrigger, "log", log)

    async def drive(number):
        made = trigger(name=f"lines/5/10/{number}", lines=spec(prefix=False, formatter=None))
        (event,) = [event async for event in made.run()]
        await made.cleanup()
        return event.payload["status"]

    async def main():
        over = asyncio.Event()
        pausing = asyncio.create_task(longest_pause(over))
        driving = []
        for number in range(COUNT):
            # As Airflow does: the loop has its turn between two triggers that begin.
            driving.append(asyncio.create_task(drive(number)))
            await asyncio.sleep(0)
        statuses = await asyncio.gather(*driving)
        over.set()
        return statuses, await pausing

    # A collection of all that the test session holds takes longer than what is measured.
    gc.disable()
    try:
        statuses, pause = asyncio.run(main())
    finally:
        gc.enable()
    # The executions of the scripted broker fail.
    assert set(statuses) == {"failed"}
    printed = [text for text in log.lines if text.startswith("line ")]
    assert len(printed) == COUNT * 50
    assert set(printed) == set(lines(50))
    assert asked(channel)["many"] == 1
    print(f"longest pause of the loop: {pause * 1000:.0f} ms")
    assert pause < 0.1


@pytest.mark.usefixtures("channel")
def test_a_trigger_that_waits_takes_little_memory(monkeypatch):
    monkeypatch.setattr(RemotePodTrigger, "log", s.RecordingLog())

    async def drive(number, started):
        made = trigger(name=f"quiet/{number}")
        waiting = asyncio.ensure_future(anext(made.run()))
        while made._follower is None or made._follower._progress is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        started.append(waiting)

    async def main():
        started = []
        await asyncio.gather(*(drive(number, started) for number in range(100)))
        before = resident()
        await asyncio.gather(*(drive(number, started) for number in range(100, COUNT)))
        grown = resident() - before
        for waiting in started:
            waiting.cancel()
        await asyncio.gather(*started, return_exceptions=True)
        return grown / (COUNT - 100)

    each = asyncio.run(main())
    print(f"memory of a waiting trigger: {each:.1f} KiB")
    assert each < 30
