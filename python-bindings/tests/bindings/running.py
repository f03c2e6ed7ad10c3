"""A scripted broker that runs, and what it prints."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from podbroker import LogChunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podbroker import Event

BROKER = Path(__file__).with_name("scripted_broker.py")


@contextmanager
def broker_at(address: str, *arguments: str) -> Iterator[str]:
    """Runs a broker and gives its address."""
    with subprocess.Popen(
        [sys.executable, str(BROKER), address, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "the scripted broker did not start"
            scheme = "https" if any(not argument.isdecimal() for argument in arguments) else "http"
            yield address if address.startswith("unix:") else f"{scheme}://127.0.0.1:{port}"
        finally:
            process.kill()


def texts(events: Iterable[Event]) -> list[str]:
    """Gives the lines of the events."""
    return [line.content.decode() for event in events if isinstance(event, LogChunk) for line in event.lines]


def lines(count: int) -> list[str]:
    """Gives what the broker prints."""
    return [f"line {number}" for number in range(count)]
