"""Calls functions later, in one thread."""

from __future__ import annotations

import heapq
import threading
import time
import traceback
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Timers:
    """What is to be done when; the thread starts with the first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Calls the action in so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), action))
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="batch-timers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def clear(self) -> None:
        """Forgets everything."""
        with self._changed:
            self._due.clear()

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    return
                _, _, action = heapq.heappop(self._due)
            try:
                action()
            except Exception:  # noqa: BLE001  the others are still due
                traceback.print_exc()
