"""Many executions followed from one event loop, over one stream to the broker.

A task of the loop takes what has come in batches and gives each event to whoever follows its execution, so that the
cost of waiting does not grow with the number of executions. A reader that falls behind is not waited for: its execution
leaves the shared stream and goes on, after the last event that was kept for it, over a stream of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import TYPE_CHECKING

from podbroker.event import End, LogChunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self

    from podbroker import _core
    from podbroker.event import Event
    from podbroker.watch import Watch

__all__ = ["Follow", "WatchMany"]

KEPT_BYTES = 64 << 20
"""What may wait for all readers together; each has an equal part of it."""

MOST_KEPT_BYTES = 1 << 20
"""What may wait for one reader: as much as the transport holds for a stream of its own."""

LEAST_KEPT_BYTES = 64 << 10
"""One chunk, however many readers there are."""

EVENT_BYTES = 1 << 10
"""What an event without lines counts for, and a line beside its content counts for a tenth of it."""


class WatchMany:
    """The events of many executions, made by ``Client.watch_many``.

    It serves one event loop at a time and connects when the first execution is followed. It survives a broker that
    restarts or is away: each execution goes on after its own last event. In another loop, such as that of a forked
    child, it begins anew and follows nothing of what was followed in the first one.
    """

    def __init__(self, open_core: Callable[[], _core.WatchMany], open_watch: Callable[..., Watch]) -> None:
        """``open_core`` makes the shared stream, ``open_watch`` one for a single execution; ``Client`` does."""
        self._open_core = open_core
        self._open_watch = open_watch
        self._core: _core.WatchMany | None = None
        self._followed: dict[str, Follow] = {}
        self._pump: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def follow(self, name: str, *, cursor: bytes = b"", logs: bool = True, containers: Iterable[str] = ()) -> Follow:
        """Follow one more execution, to its end; the arguments are those of ``Client.watch``.

        Must be called in the event loop. An execution that is followed already gets a stream of its own.
        """
        self._meet_loop(asyncio.get_running_loop())
        follow = Follow(many=self, name=name, cursor=cursor, logs=logs, containers=tuple(containers))
        if name in self._followed:
            follow.go_alone()
            return follow
        self._followed[name] = follow
        core = self._running()
        core.add(name=name, cursor=cursor, logs=logs, containers=list(follow.containers))
        return follow

    def close(self) -> None:
        """Stop following. The executions run on; whoever waits for an event hears that nothing more comes."""
        for follow in list(self._followed.values()):
            follow.close()

    def __len__(self) -> int:
        """Give the number of executions that are followed over the shared stream."""
        return len(self._followed)

    def open_alone(self, follow: Follow) -> Watch:
        """Make a stream for one execution."""
        return self._open_watch(
            follow.name, cursor=follow.cursor, logs=follow.logs, containers=follow.containers, retry_for=None
        )

    @property
    def share(self) -> int:
        """How many bytes may wait for one reader."""
        return max(LEAST_KEPT_BYTES, min(MOST_KEPT_BYTES, KEPT_BYTES // max(1, len(self._followed))))

    def forget(self, follow: Follow) -> None:
        """Take an execution off the shared stream; its end has, when the stream is told of it, done that already."""
        if self._followed.get(follow.name) is not follow:
            return
        del self._followed[follow.name]
        if self._core is None:
            return
        if not follow.ended:
            self._core.remove(name=follow.name)
        if not self._followed:
            self._stop()

    def _meet_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            self._loop = loop
            # Those who wait in another loop have to stop by themselves: nothing of theirs may be touched from here.
            self._core, self._pump, self._followed = None, None, {}

    def _running(self) -> _core.WatchMany:
        if self._core is None or self._pump is None or self._pump.done():
            self._core = self._open_core()
            # In a context of its own: what the task of the first reader has bound there is not the others'.
            self._pump = contextvars.Context().run(asyncio.create_task, self._run(self._core))
        return self._core

    def _stop(self) -> None:
        core, self._core = self._core, None
        pump, self._pump = self._pump, None
        if core is not None:
            core.close()
        # The one that is running ends by itself.
        if pump is not None and pump is not asyncio.current_task():
            pump.cancel()

    async def _run(self, core: _core.WatchMany) -> None:
        try:
            while core is self._core:
                await core.ready()
                for name, item in core.take():
                    follow = self._followed.get(name)
                    if follow is not None:
                        follow.give(item)
                # The readers and the rest of the loop have their turn between two batches.
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 -- whatever ends the stream is told to all who wait for it
            self._fail(core, error)
        except asyncio.CancelledError:
            self._fail(core, None)
            raise

    def _fail(self, core: _core.WatchMany, error: Exception | None) -> None:
        if core is not self._core:
            return
        followed, self._followed = self._followed, {}
        self._core = None
        core.close()
        for follow in followed.values():
            follow.give(error if error is not None else asyncio.CancelledError())


class Follow:
    """The events of one of the executions, for ``async for``."""

    def __init__(self, *, many: WatchMany, name: str, cursor: bytes, logs: bool, containers: tuple[str, ...]) -> None:
        """Begin after ``cursor``; ``WatchMany.follow`` does."""
        self._many = many
        self._kept: deque[Event | BaseException] = deque()
        self._kept_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._alone: Watch | None = None
        self._leaves = False
        self.name = name
        self.logs = logs
        self.containers = containers
        self.cursor = cursor
        """The position after the last event handed out."""
        self.ended = False
        """Whether the shared stream has nothing more for it."""

    @property
    def is_alone(self) -> bool:
        """Whether it has a stream of its own."""
        return self._alone is not None or self._leaves

    def close(self) -> None:
        """Stop following. The execution runs on."""
        self._many.forget(self)
        self.ended = True
        self._kept.clear()
        if self._alone is not None:
            self._alone.close()
        self._wake()

    def go_alone(self) -> None:
        """Leave the shared stream: what was kept is handed out, and a stream of its own goes on after it."""
        self._many.forget(self)
        self._leaves = True

    def give(self, item: Event | BaseException) -> None:
        """Keep an event until it is asked for."""
        size = _size_of(item)
        if self._kept and self._kept_bytes + size > self._many.share:
            self.go_alone()
            return
        self._kept.append(item)
        self._kept_bytes += size
        if isinstance(item, (BaseException, End)):
            self.ended = True
            self._many.forget(self)
        self._wake()

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event. What comes while nobody waits, or while a wait is cancelled, is not lost."""
        while not self._kept:
            if self._alone is not None:
                event = await self._alone.__anext__()
                self.cursor = self._alone.cursor
                return event
            if self._leaves and not self.ended:
                self._alone = self._many.open_alone(self)
                continue
            if self.ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item = self._kept.popleft()
        self._kept_bytes -= _size_of(item)
        if isinstance(item, BaseException):
            raise item
        self.cursor = item.cursor or self.cursor
        return item

    async def __aenter__(self) -> Self:
        """Use it in an ``async with`` block, which closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _size_of(item: Event | BaseException) -> int:
    if isinstance(item, LogChunk):
        return EVENT_BYTES + sum(len(line.content) + EVENT_BYTES // 10 for line in item.lines)
    return EVENT_BYTES
