"""All jobs, and what finds them: by id, by name, by queue, by status. Lists begin with the newest."""

from __future__ import annotations

from collections import defaultdict
from fnmatch import fnmatchcase
from itertools import count
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .job import Job

#: Results of one ListJobs with a filter, and without.
_PAGE_FILTERED: Final = 100
_PAGE: Final = 1000


class Jobs:
    """The double's memory of jobs; to be used under the lock of its owner."""

    def __init__(self) -> None:
        self.by_id: dict[str, Job] = {}
        self.numbers = count(1)
        #: Without children of arrays, oldest first.
        self._by_queue: dict[str, list[Job]] = defaultdict(list)
        self._by_name: dict[tuple[str, str], list[Job]] = defaultdict(list)
        #: With children, by status, for those who do not name a filter.
        self._by_status: dict[tuple[str, str], dict[int, Job]] = defaultdict(dict)

    def add(self, job: Job) -> None:
        """Remembers a job."""
        self.by_id[job.id] = job
        if job.parent is None:
            self._by_queue[job.queue.arn].append(job)
            self._by_name[job.queue.arn, job.name.lower()].append(job)
            self._by_status[job.queue.arn, job.now.status][job.number] = job

    def moved(self, job: Job, before: str) -> None:
        """A job has left a status."""
        if job.parent is None:
            self._by_status[job.queue.arn, before].pop(job.number, None)
            self._by_status[job.queue.arn, job.now.status][job.number] = job

    def all(self) -> list[Job]:
        """Every job and every child, oldest first."""
        return list(self.by_id.values())

    def like(self, name: str) -> Iterator[Job]:
        """Jobs, without children, whose name has that shape, oldest first."""
        for jobs in self._by_queue.values():
            yield from (job for job in jobs if fnmatchcase(job.name, name))

    def filtered(self, queue: str, name: str, values: list[str]) -> Iterable[Job]:
        """Jobs that a filter of ListJobs finds, newest first."""
        if name == "JOB_NAME" and len(values) == 1 and not values[0].endswith("*"):
            return reversed(self._by_name[queue, values[0].lower()])
        accepts = _FILTERS[name]
        return (job for job in reversed(self._by_queue[queue]) if any(accepts(job, value) for value in values))

    def with_status(self, queue: str, status: str) -> Iterable[Job]:
        """Jobs that stand so now, newest first."""
        found = self._by_status[queue, status]
        return (found[number] for number in sorted(found, reverse=True))

    def of_queue(self, queue: str) -> Iterable[Job]:
        """All jobs of a queue, newest first."""
        return reversed(self._by_queue[queue])


def page(jobs: Iterable[Job], token: str | None, size: int | None, *, filtered: bool) -> tuple[list[Job], str | None]:
    """One page, and the token of the next: the number of the last job that was shown."""
    most = _PAGE_FILTERED if filtered else _PAGE
    limit = min(size or most, most)
    before = int(token) if token else None
    shown: list[Job] = []
    for job in jobs:
        if before is not None and job.number >= before:
            continue
        if len(shown) == limit:
            return shown, str(shown[-1].number)
        shown.append(job)
    return shown, None


def _like(text: str, pattern: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def _has_definition(job: Job, value: str) -> bool:
    """An ARN means one revision, a name all of them."""
    return job.definition.arn == value if value.startswith("arn:") else _like(job.definition.name, value)


_FILTERS: Final[dict[str, Callable[[Any, str], bool]]] = {
    "JOB_NAME": lambda job, value: _like(job.name.lower(), value.lower()),
    "JOB_DEFINITION": _has_definition,
    "BEFORE_CREATED_AT": lambda job, value: job.created * 1000 < int(value),
    "AFTER_CREATED_AT": lambda job, value: job.created * 1000 > int(value),
    "SHARE_IDENTIFIER": lambda job, value: _like(job.request.get("shareIdentifier", ""), value),
}
FILTERS: Final = frozenset(_FILTERS)
