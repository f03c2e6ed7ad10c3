"""How many requests there were: per operation, per outcome, per second."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from typing import Any


class Counts:
    """May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Begins anew."""
        with self._lock:
            self._outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
            self._seconds: defaultdict[int, Counter[str]] = defaultdict(Counter)
            self._begin = time.time()

    def add(self, operation: str, outcome: str) -> None:
        """One request."""
        with self._lock:
            self._outcomes[operation][outcome] += 1
            self._seconds[int(time.time())][operation] += 1

    def show(self) -> dict[str, Any]:
        """`operations`: outcomes by operation; `seconds`: operations by second since the epoch; `since` and `total`."""
        with self._lock:
            return {
                "since": self._begin,
                "total": sum(sum(outcomes.values()) for outcomes in self._outcomes.values()),
                "operations": {name: dict(outcomes) for name, outcomes in self._outcomes.items()},
                "seconds": {str(second): dict(found) for second, found in self._seconds.items()},
            }
