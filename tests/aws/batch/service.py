"""AWS Batch as a whole: what it knows, and the lock over all of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from .behaviour import Behaviour
from .counts import Counts
from .definitions import Definitions
from .jobs import Jobs
from .scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .job import Job


class Batch:
    """Nothing of it outlives the process: jobs end with it, as do their pods when it is closed."""

    def __init__(self, tell: Callable[[Job], None]) -> None:
        """`tell` is called with every job that has come into another status, under the lock."""
        self.lock = threading.RLock()
        self._tell = tell
        self.counts = Counts()
        self._violations: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self.definitions, self.jobs, self.behaviour = Definitions(), Jobs(), Behaviour()
        self.scheduler = Scheduler(self.lock, self.jobs, self.behaviour, self._tell)
        #: Of what is not a job or a definition, by ARN.
        self.tags: dict[str, dict[str, str]] = {}

    def reset(self) -> None:
        """Forgets everything, and deletes the pods of all jobs before it returns."""
        with self.lock:
            before = self.scheduler
            self._begin()
            self._violations.clear()
        self.counts.clear()
        before.close()

    def close(self) -> None:
        """Deletes the pods of all jobs and ends all threads."""
        self.scheduler.close()

    def violate(self, found: Iterable[str]) -> None:
        """Remembers what no client or service of AWS would have said."""
        with self.lock:
            self._violations += found

    def violations(self) -> list[str]:
        """What was said wrong so far."""
        with self.lock:
            return list(self._violations)

    def forgive(self) -> list[str]:
        """What was said wrong so far, for the last time."""
        with self.lock:
            found = list(self._violations)
            self._violations.clear()
            return found

    def show(self, name: str) -> list[dict[str, Any]]:
        """The truth about the jobs, without children of arrays, whose name has that shape; oldest first."""
        with self.lock:
            return [
                {
                    "id": job.id,
                    "name": job.name,
                    "queue": job.queue.name,
                    "status": job.now.status,
                    "reason": job.now.reason,
                    "created": job.created,
                    "stopped": job.now.stopped,
                    "tags": dict(job.tags),
                    "is_terminated": job.now.is_terminated,
                    "attempts": [one.pod_name for one in job.now.attempts],
                    "pod": job.now.current.pod_name if job.now.current else None,
                    "children": [child.now.status for child in job.children],
                }
                for job in self.jobs.like(name)
            ]
