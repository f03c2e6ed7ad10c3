"""The streams: what happens to one execution, and the checks of one target.

One class serves ``for`` and ``async for``. An event that arrived while the coroutine that waited for it was cancelled
is not lost: the next one to ask gets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from podbroker import _core
    from podbroker.event import Event
    from podbroker.target import Check

__all__ = ["Checks", "Watch"]


class Watch:
    """The events of one execution, made by ``Client.watch``.

    It connects when the first event is asked for. It survives a broker that restarts or is away, and a fork: it goes on
    after the last event that was handed out.
    """

    __slots__ = ("_core",)

    def __init__(self, core: _core.Watch) -> None:
        """Wrap a native watch; ``Client.watch`` does."""
        self._core = core

    @property
    def ended(self) -> bool:
        """Whether nothing more comes: the last event was handed out, an error was raised, or it was closed."""
        return self._core.ended

    @property
    def cursor(self) -> bytes:
        """The position after the last event handed out; before that, what the watch began with."""
        return self._core.cursor

    def poll(self, timeout: float | None = None) -> Event | None:
        """Give the next event.

        None when ``timeout`` seconds have passed, when ``wake`` was called, now or since the last poll, or when the
        watch has ended; ``ended`` tells the last case from the others.
        """
        return self._core.poll(timeout=timeout)

    def wake(self) -> None:
        """Let a ``poll`` that waits, or else the next one, give None at once.

        May be called from another thread and from a Python signal handler.
        """
        self._core.wake()

    def close(self) -> None:
        """Stop following. The execution runs on."""
        self._core.close()

    def __iter__(self) -> Self:
        """Iterate over the events."""
        return self

    def __next__(self) -> Event:
        """Wait for the next event."""
        event = self._core.next()
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Self:
        """Iterate over the events, for asyncio."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event, for asyncio."""
        while not self._core.ended:
            await self._core.ready()
            # No await between the event and its reader, so that a cancellation finds it either taken or still there.
            event = self._core.take()
            if event is not None:
                return event
        raise StopAsyncIteration

    def __enter__(self) -> Self:
        """Use the watch in a ``with`` block, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Use the watch in an ``async with`` block, which closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class Checks:
    """The checks of one target, made by ``Client.check``; each is given when it is done."""

    __slots__ = ("_core",)

    def __init__(self, core: _core.Checks) -> None:
        """Wrap native checks; ``Client.check`` does."""
        self._core = core

    def __iter__(self) -> Self:
        """Iterate over the checks."""
        return self

    def __next__(self) -> Check:
        """Wait for the next check."""
        check = self._core.next().wait()
        if check is None:
            raise StopIteration
        return check

    def __aiter__(self) -> Self:
        """Iterate over the checks, for asyncio."""
        return self

    async def __anext__(self) -> Check:
        """Wait for the next check, for asyncio."""
        check = await self._core.next()
        if check is None:
            raise StopAsyncIteration
        return check
