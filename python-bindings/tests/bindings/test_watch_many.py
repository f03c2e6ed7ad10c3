"""Many executions over one stream, from one event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from running import broker_at, lines, texts

import podbroker
from podbroker import Client, End, LogChunk, StateChanged
from podbroker import watch_many as module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podbroker import Event
    from podbroker.watch_many import Follow


@pytest.fixture
def client() -> Iterator[Client]:
    """Gives a client of a broker of the test's own, which counts what it was asked."""
    with broker_at("127.0.0.1:0") as address, Client(address) as client:
        yield client


def asked(client: Client) -> dict[str, int]:
    """Gives how often the broker was asked for what."""
    return {key: int(count) for key, count in client.get("asked").labels.items() if key != "a"}


async def collect(follow: Follow) -> list[Event]:
    return [event async for event in follow]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 -- what is waited for happens in another process
            await asyncio.sleep(0.001)


def test_each_execution_says_over_the_shared_stream_what_a_watch_of_it_says(client: Client) -> None:
    names = ["everything", "lines/5/3", "ok"]

    async def main() -> list[list[Event]]:
        many = client.watch_many()
        return await asyncio.gather(*(collect(many.follow(name)) for name in names))

    assert asyncio.run(main()) == [list(client.watch(name)) for name in names]
    counts = asked(client)
    assert (counts["one"], counts["many"], counts["remove"]) == (3, 1, 0)


def test_a_thousand_executions_take_one_stream_and_never_stop_the_loop(client: Client) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        many = client.watch_many()
        follows = [many.follow(f"lines/4/5/{number}") for number in range(1000)]
        collected = await asyncio.gather(*(collect(follow) for follow in follows))
        assert all(texts(events) == lines(20) for events in collected)
        assert len(many) == 0
        ticking.cancel()

    asyncio.run(main())
    assert asked(client)["many"] == 1
    # Others had their turns in between; a loop that waits for the broker gives none.
    assert ticks > 10


def test_the_loop_is_woken_for_batches_and_not_for_events(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    woken = 0

    async def main() -> list[Event]:
        nonlocal woken
        loop = asyncio.get_running_loop()
        call_soon_threadsafe = loop.call_soon_threadsafe

        def counting(*args: object, **kwargs: object) -> object:
            nonlocal woken
            woken += 1
            return call_soon_threadsafe(*args, **kwargs)

        follow = client.watch_many().follow("lines/5000/1")
        first = await anext(follow)
        # The loop stands still until all of it is on its way.
        while asked(client)["sent"] < 5002:
            pass
        monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
        return [first, *await collect(follow)]

    assert texts(asyncio.run(main())) == lines(5000)
    assert woken < 250


def test_an_execution_that_cannot_be_followed_ends_only_its_own_reader(client: Client) -> None:
    async def main() -> None:
        many = client.watch_many()
        good, bad = many.follow("lines/3/1"), many.follow("error/NOT_FOUND/NO_SUCH_EXECUTION")
        with pytest.raises(podbroker.NotFoundError):
            await anext(bad)
        assert texts(await collect(good)) == lines(3)
        with pytest.raises(StopAsyncIteration):
            await anext(bad)

    asyncio.run(main())


def test_a_reader_that_begins_at_a_cursor_gets_the_rest(client: Client) -> None:
    async def main() -> None:
        many = client.watch_many()
        first = many.follow("lines/4/2")
        seen = [await anext(first) for _ in range(3)]
        assert texts(seen) == lines(4)
        cursor = first.cursor
        first.close()
        assert texts(await collect(many.follow("lines/4/2", cursor=cursor))) == lines(8)[4:]
        (chunk,) = (event for event in seen[2:] if isinstance(event, LogChunk))
        middle = many.follow("lines/4/2", cursor=chunk.cursor_after(1))
        assert texts(await collect(middle)) == lines(8)[3:]

    asyncio.run(main())


def test_a_reader_that_falls_behind_goes_on_alone_and_misses_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT_BYTES", 8 << 10)
    monkeypatch.setattr(module, "LEAST_KEPT_BYTES", 8 << 10)

    async def main() -> None:
        many = client.watch_many()
        slow, fast = many.follow("lines/200/10"), many.follow("lines/3/1")
        first = await anext(slow)
        assert texts(await collect(fast)) == lines(3), "the slow one holds nobody up"
        await until(lambda: slow.is_alone)
        events = [first, *await collect(slow)]
        assert texts(events) == lines(2000)
        assert isinstance(events[-1], End)

    asyncio.run(main())
    assert asked(client)["one"] == 1
    assert asked(client)["many"] == 1


def test_one_execution_may_be_followed_twice(client: Client) -> None:
    async def main() -> None:
        many = client.watch_many()
        follows = [many.follow("lines/3/1"), many.follow("lines/3/1")]
        assert [texts(events) for events in await asyncio.gather(*map(collect, follows))] == [lines(3)] * 2

    asyncio.run(main())


def test_cancelling_a_wait_loses_no_event(client: Client) -> None:
    async def main() -> list[Event]:
        follow = client.watch_many().follow("lines/200/1")
        events: list[Event] = []
        rounds = 0
        while not any(isinstance(event, End) for event in events):
            rounds += 1
            task = asyncio.ensure_future(append_next(follow, events))
            for _ in range(rounds % 7):
                await asyncio.sleep(0.0001 * (rounds % 5))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return events

    async def append_next(follow: Follow, events: list[Event]) -> None:
        events.append(await anext(follow))

    assert texts(asyncio.run(main())) == lines(200)


def test_one_that_is_left_is_not_heard_of_and_the_others_are(client: Client) -> None:
    async def main() -> None:
        many = client.watch_many()
        left, kept = many.follow("quiet/1"), many.follow("quiet/2")
        assert isinstance(await anext(left), StateChanged)
        assert isinstance(await anext(kept), StateChanged)
        left.close()
        assert [event async for event in left] == []
        assert len(many) == 1
        await until(lambda: asked(client)["remove"] > 0)
        many.close()
        assert [event async for event in kept] == []

    asyncio.run(main())


def test_it_goes_on_when_the_broker_is_replaced() -> None:
    async def main() -> None:
        with broker_at("127.0.0.1:0", "3") as address:
            many = Client(address).watch_many()
            follows = [many.follow("lines/6/1"), many.follow("lines/7/1")]
            before = [[await anext(follow) for _ in range(3)] for follow in follows]
        with broker_at(address.removeprefix("http://")):
            rest = await asyncio.gather(*map(collect, follows))
        for events, more, count in zip(before, rest, (6, 7), strict=True):
            assert texts([*events, *more]) == lines(count)

    asyncio.run(main())


def test_a_broker_that_is_away_for_too_long_is_told_to_all_who_wait(client: Client) -> None:
    async def main() -> None:
        many = Client("http://127.0.0.1:1").watch_many(retry_for=0.5)
        follows = [many.follow("a"), many.follow("b")]
        for follow in follows:
            with pytest.raises(podbroker.UnavailableError):
                await anext(follow)
        assert len(many) == 0

    del client
    asyncio.run(main())


def test_it_begins_anew_in_a_forked_child_and_goes_on_in_the_parent(run_program: Callable[[str], str]) -> None:
    assert (
        run_program("""
        import asyncio, os, podbroker
        client = podbroker.Client(address)
        many = client.watch_many()
        async def count(follow):
            return sum([len(event.lines) async for event in follow if isinstance(event, podbroker.LogChunk)])
        async def follow_anew():
            print(await count(many.follow("lines/10/2")), flush=True)
        async def main():
            follow = many.follow("lines/30/2")
            await anext(follow)
            pid = os.fork()
            if pid == 0:
                # The loop of the parent runs in the child's only thread: a new one needs it to be forgotten.
                asyncio._set_running_loop(None)
                asyncio.new_event_loop().run_until_complete(follow_anew())
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            print(await count(follow), flush=True)
        asyncio.run(main())
        """)
        == "20\n60\n"
    )


def test_the_loop_may_end_while_executions_are_followed(run_program: Callable[[str], str]) -> None:
    assert (
        run_program("""
        import asyncio, podbroker
        many = podbroker.Client(address).watch_many()
        async def main():
            follow = many.follow("quiet")
            await anext(follow)
        asyncio.run(main())
        asyncio.run(main())
        print("done")
        """)
        == "done\n"
    )


def test_a_program_may_end_right_after_the_last_event(run_program: Callable[[str], str]) -> None:
    """What hands the event over may still be inside the interpreter then. Ten times: it is a matter of moments."""
    for _ in range(10):
        assert (
            run_program("""
            import asyncio, podbroker
            async def main():
                print(len([event async for event in podbroker.Client(address).watch_many().follow("lines/20/1")]))
            asyncio.run(main())
            """)
            == "22\n"
        )
