"""What a triggerer has logged and its supervisor has not read yet.

The supervisor of Airflow 3 reads 4 KiB of log between two rounds of questions to its database. A trigger that prints
faster fills the socket between them, and then each logging call stops the event loop of all triggers; and what is still
unread when a trigger ends is not put into its task's log. So whoever prints waits here, and the loop goes on.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import stat
import sys
import time
from typing import Any

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["drained", "is_taken", "unread"]

ROOM = 48 << 10
"""Bytes that may be unread before more is printed: a socket holds about 200 KiB, and a piece of 50 lines 25."""

LOOK_SECONDS = 0.02
"""How often is looked."""


async def drained(*, to: int, seconds: float) -> bool:
    """Wait until at most ``to`` bytes are unread; False when that took longer than ``seconds``."""
    until = time.monotonic() + seconds
    while unread() > to:
        if time.monotonic() > until:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True


def unread() -> int:
    """Count the unread bytes; 0 where that cannot be found out, as in a task's own process or on another system."""
    for handler in logging.getLogger().handlers:
        try:
            count = _held(handler.stream.fileno())  # type: ignore[attr-defined]
        except (AttributeError, OSError, ValueError):
            continue
        if count is not None:
            return count
    return 0


def is_taken(comms: Any) -> bool:  # noqa: ANN401 -- none is typed
    """Whether the supervisor has read all that it was asked. False where that cannot be found out.

    What it has read it does before it looks whether this process has ended; what it has not read then, it never does.
    """
    try:
        transport = comms._async_writer.transport  # noqa: SLF001 -- Airflow has no other way to it
        held = _held(transport.get_extra_info("socket").fileno())
        return held == 0 and transport.get_write_buffer_size() == 0
    except (AttributeError, OSError, ValueError):
        return False


def _held(descriptor: int) -> int | None:
    """Count the bytes that the other side of a socket has not taken yet; None for what is none, or elsewhere."""
    if sys.platform != "linux" or not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return None
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.TIOCOUTQ, count)  # SIOCOUTQ, man 7 unix and tcp
    return count[0]
