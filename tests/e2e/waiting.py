"""Waiting on a condition, with a deadline and a word on what was waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Seconds. Generous: two busy cores also build and run a whole Kubernetes.
LONG = 90.0


def wait_for(
    what: str,
    condition: Callable[[], T],
    *,
    within: float = LONG,
    every: float = 0.05,
    about: Callable[[], object] | None = None,
) -> T:
    """Returns the first true value of the condition; fails after `within` seconds, with it or what `about` says."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            last = value if about is None else about()
            raise AssertionError(f"waited {within:.0f} s for {what}; last: {last!r}")
        time.sleep(every)
