"""The twins for asyncio do the same, and never stop the loop."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from running import lines, texts

import podbroker
from podbroker import Client, End, ExecutionState, Policies, StateChanged

if TYPE_CHECKING:
    from podbroker import Event


#: What two submits have in common.
MOMENT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def test_each_call_has_a_twin_that_says_the_same(client: Client) -> None:
    async def main() -> None:
        assert await client.get_async("ok") == client.get("ok")
        assert await client.get_async("ok", full=True) == client.get("ok", full=True)
        assert await client.cancel_async("n", reason="r") == client.cancel("n", reason="r")
        assert await client.release_async("n", claim="c") == client.release("n", claim="c")
        assert await client.targets_async() == client.targets()
        assert await client.server_info_async() == client.server_info()
        states = [ExecutionState.RUNNING]
        assert await client.list_async("t", states=states) == client.list("t", states=states)
        submission = await client.submit_async(
            target="t",
            execution_id="e",
            pod={},
            policies=Policies(),
            submit_before=MOMENT,
        )
        assert submission == client.submit(
            target="t",
            execution_id="e",
            pod={},
            policies=Policies(),
            submit_before=MOMENT,
        )
        assert [check async for check in client.check("t")] == list(client.check("t"))

    asyncio.run(main())


def test_an_error_is_raised_where_it_is_awaited(client: Client) -> None:
    async def main() -> None:
        with pytest.raises(podbroker.NotFoundError):
            await client.get_async("error/NOT_FOUND/NO_SUCH_EXECUTION")
        with pytest.raises(podbroker.ExpiredError):
            await anext(client.watch("error/NOT_FOUND/EXPIRED"))

    asyncio.run(main())


def test_async_for_gives_what_for_gives(client: Client) -> None:
    async def main() -> list[Event]:
        async with client.watch("everything") as watch:
            return [event async for event in watch]

    assert asyncio.run(main()) == list(client.watch("everything"))


def test_the_loop_runs_on_while_many_wait(client: Client) -> None:
    async def main() -> None:
        async def follow(number: int) -> list[str]:
            return texts([event async for event in client.watch(f"lines/{number}/2")])

        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        waiting = asyncio.create_task(client.get_async("silent"))
        results = await asyncio.gather(*(follow(number) for number in range(30)))
        assert results == [lines(2 * number) for number in range(30)]
        assert ticks > 30
        for task in (ticking, waiting):
            task.cancel()
        await asyncio.gather(ticking, waiting, return_exceptions=True)

    asyncio.run(main())


def test_a_cancelled_call_ends_and_the_client_works_on(client: Client) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.get_async("silent"), timeout=0.2)
        assert (await client.get_async("ok")).execution_id == "id-1"

    asyncio.run(main())


def test_cancelling_a_wait_loses_no_event(client: Client) -> None:
    """Cancels at every moment that there is: before, while and after an event becomes ready."""

    async def main() -> list[Event]:
        watch = client.watch("lines/300/1")
        events: list[Event] = []
        rounds = 0
        while not watch.ended:
            rounds += 1
            # The event is appended in the coroutine itself, as a trigger would yield it.
            task = asyncio.ensure_future(append_next(watch, events))
            for _ in range(rounds % 7):
                await asyncio.sleep(0.0001 * (rounds % 5))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return events

    async def append_next(watch: podbroker.Watch, events: list[Event]) -> None:
        events.append(await watch.__anext__())

    events = asyncio.run(main())
    assert texts(events) == lines(300)
    assert isinstance(events[0], StateChanged)
    assert isinstance(events[-1], End)


def test_close_ends_an_async_for(client: Client) -> None:
    async def main() -> int:
        watch = client.watch("quiet")
        asyncio.get_running_loop().call_later(0.1, watch.close)
        return len([event async for event in watch])

    assert asyncio.run(main()) == 1


def test_one_watch_serves_both_ways_and_several_loops(client: Client) -> None:
    watch = client.watch("lines/4/1")

    async def two() -> list[Event]:
        return [await watch.__anext__(), await watch.__anext__()]

    events = asyncio.run(two())
    events.append(next(watch))
    events += asyncio.run(two())
    events += list(watch)
    assert texts(events) == lines(4)


def test_a_loop_in_another_thread_is_served(client: Client) -> None:
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(client.get_async("ok")).execution_id))
    thread.start()
    thread.join()
    assert results == ["id-1"]


def test_without_a_running_loop_there_is_no_twin(client: Client) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        client.get_async("ok").send(None)
