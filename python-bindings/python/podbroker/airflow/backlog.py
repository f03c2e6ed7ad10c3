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

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["drained", "unread"]

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
    if sys.platform != "linux":
        return 0
    count = array.array("i", [0])
    for handler in logging.getLogger().handlers:
        try:
            descriptor = handler.stream.fileno()  # type: ignore[attr-defined]
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                # Of a socket: what the other side has not taken yet (SIOCOUTQ, man 7 unix and tcp).
                fcntl.ioctl(descriptor, termios.TIOCOUTQ, count)
                return count[0]
        except (AttributeError, OSError, ValueError):
            continue
    return 0
