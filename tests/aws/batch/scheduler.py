"""Takes jobs through their states: what waits, what may start, what an end leads to. Pods are left to `attempts`."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .attempts import Attempts
from .job import EARLY, ENDED, STATES, Job
from .timers import Timers

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from .behaviour import Behaviour
    from .jobs import Jobs

_DEPENDENCY_FAILED: Final = "Dependent Job failed"
_CHILD_FAILED: Final = "Array Child Job failed"


class Scheduler:
    """Everything here is done under the lock, which is the whole double's."""

    def __init__(self, lock: threading.RLock, jobs: Jobs, behaviour: Behaviour, tell: Callable[[Job], None]) -> None:
        self._lock, self._jobs, self._behaviour, self._told = lock, jobs, behaviour, tell
        self._timers = Timers()
        self.attempts = Attempts(lock, behaviour, self._timers, self)
        #: Jobs that wait for the end of another, by its id.
        self._dependents: dict[str, list[Job]] = defaultdict(list)
        self._unsettled: deque[Job] = deque()
        #: Jobs that a rule holds.
        self._held: dict[str, Job] = {}
        #: By compute environment: how many have a pod, and who waits for room.
        self._live: dict[str, int] = defaultdict(int)
        self._waiting: dict[str, dict[str, Job]] = defaultdict(dict)

    def close(self) -> None:
        """Ends everything that runs here; pods are deleted."""
        self._timers.close()
        self.attempts.close()

    def accept(self, job: Job) -> None:
        """A job was submitted."""
        with self._lock:
            self._add(job)
            self.advance(job)

    def reconsider(self) -> None:
        """Rules have changed: what was held may go on."""
        with self._lock:
            for job in list(self._held.values()):
                self.advance(job)

    def advance(self, job: Job) -> None:
        """Takes a job as far as it can go now."""
        with self._lock:
            while job.now.status in EARLY and not self._stays(job):
                match job.now.status:
                    case "SUBMITTED":
                        self.move(job, "PENDING" if job.waits_for or job.size else "RUNNABLE")
                    case "PENDING" if job.waits_for:
                        return
                    case "PENDING" if job.size:
                        self._spawn(job)
                        return
                    case "PENDING":
                        self.move(job, "RUNNABLE")
                    case _ if not self._start(job):
                        return
            if job.now.status == "STARTING" and not self.is_held(job):
                self._held.pop(job.id, None)
                self.attempts.let_go(job)

    def is_held(self, job: Job) -> bool:
        """Whether a rule keeps the job in its status."""
        hold = self._behaviour.of(job, "hold")
        return hold is not None and hold["state"] == job.now.status and not (job.size and job.children)

    def hold(self, job: Job) -> None:
        """A rule keeps the job in its status, and may say why."""
        self._held[job.id] = job
        reason = self._behaviour.of(job, "hold").get("reason", "")
        if job.now.reason != reason:
            job.change(time.time(), reason=reason)

    def move(self, job: Job, status: str, **changes: Any) -> None:  # noqa: ANN401  fields of a standing
        """Takes a job into a status; the one place where that happens."""
        before, now = job.now.status, time.time()
        if before == status:
            return
        job.change(now, **{"reason": "", **changes, "status": status})
        self._jobs.moved(job, before)
        self._held.pop(job.id, None)
        self._told(job)
        if job.parent is not None:
            self._count(job.parent, before, status, now)
        if status in ENDED:
            self._settle(job)
        terminate = self._behaviour.of(job, "terminate")
        if terminate is not None and terminate["state"] == status:
            action = partial(self.end, job, terminate.get("reason", "Terminated by somebody"), is_terminate=True)
            self._timers.after(terminate.get("after", 0.0), action)

    def leave_room(self, job: Job) -> None:
        """A pod has ended: another may start."""
        key = job.environment.arn
        self._live[key] -= 1
        while self._waiting[key]:
            following = self._waiting[key].pop(next(iter(self._waiting[key])))
            self.advance(following)
            if following.now.status == "STARTING":
                return

    def end(self, job: Job, reason: str, *, is_terminate: bool) -> None:
        """TerminateJob, or else CancelJob, which leaves a job alone that has a pod."""
        with self._lock:
            if job.has_ended:
                return
            flags = {"is_terminated": True} if is_terminate else {"is_cancelled": True}
            if job.children:
                job.ending = ("terminated", reason)
                job.change(time.time(), **flags)
                for child in job.children:
                    self.end(child, reason, is_terminate=is_terminate)
            elif job.now.status in EARLY:
                self.move(job, "FAILED", reason=reason, stopped=time.time(), **flags)
            elif is_terminate:
                job.change(time.time(), **flags)
                self.attempts.stop(job, ("terminated", reason), grace=None)

    def _add(self, job: Job) -> None:
        self._jobs.add(job)
        for other in list(job.waits_for):
            # The children of an array may not be there yet.
            found = self._jobs.by_id.get(other) or self._jobs.by_id.get(other.partition(":")[0])
            if found is not None and found.now.status == "SUCCEEDED":
                job.waits_for.discard(other)
            elif found is not None and found.has_ended:
                self.move(job, "FAILED", reason=_DEPENDENCY_FAILED, stopped=time.time())
                return
            else:
                self._dependents[other].append(job)

    def _stays(self, job: Job) -> bool:
        """Whether the job is not to leave its status yet."""
        if self.is_held(job):
            self.hold(job)
            return True
        if job.size and job.children:
            return False
        left: float = job.entered + self._behaviour.of(job, "pace").get(job.now.status, 0.0) - time.time()
        if left > 0:
            self._timers.after(left, partial(self.advance, job))
        return left > 0

    def _start(self, job: Job) -> bool:
        """Has a pod made; False without room, until `leave_room`."""
        key, room = job.environment.arn, job.environment.facts.get("max_pods")
        if room is not None and self._live[key] >= room:
            self._waiting[key][job.id] = job
            return False
        self._live[key] += 1
        self.attempts.start(job)
        return True

    def _spawn(self, parent: Job) -> None:
        """Makes the children of an array."""
        if parent.children:
            return
        counts = [0] * len(STATES)
        counts[0] = parent.size
        parent.change(time.time(), children=tuple(counts))
        dependencies = parent.request.get("dependsOn", [])
        for index in range(parent.size):
            waits = {f"{one['jobId']}:{index}" for one in dependencies if one.get("type") == "N_TO_N"}
            if index and any(one.get("type") == "SEQUENTIAL" and "jobId" not in one for one in dependencies):
                waits.add(f"{parent.id}:{index - 1}")
            parent.children.append(self._child(parent, index, waits))
        for child in parent.children:
            self._add(child)
        for child in parent.children:
            self.advance(child)

    def _child(self, parent: Job, index: int, waits: set[str]) -> Job:
        return Job(
            id=f"{parent.id}:{index}",
            number=next(self._jobs.numbers),
            created=time.time(),
            request=parent.request,
            queue=parent.queue,
            environment=parent.environment,
            definition=parent.definition,
            pod=parent.pod,
            tags=parent.tags,
            parent=parent,
            index=index,
            waits_for=waits,
        )

    def _count(self, parent: Job, before: str, status: str, now: float) -> None:
        counts = list(parent.now.children)
        counts[STATES.index(before)] -= 1
        counts[STATES.index(status)] += 1
        started = now if status == "RUNNING" and parent.now.started is None else parent.now.started
        parent.change(now, children=tuple(counts), started=started)
        succeeded, failed = (counts[STATES.index(one)] for one in ENDED)
        if succeeded + failed == parent.size:
            reason = parent.ending[1] if parent.ending else _CHILD_FAILED
            if failed:
                self.move(parent, "FAILED", reason=reason, stopped=now)
            else:
                self.move(parent, "SUCCEEDED", stopped=now)

    def _settle(self, job: Job) -> None:
        """Tells of an end to those that have waited for it, one after another: a chain of jobs may be long."""
        self._unsettled.append(job)
        if len(self._unsettled) == 1:
            while self._unsettled:
                self._tell(self._unsettled[0])
                self._unsettled.popleft()

    def _tell(self, job: Job) -> None:
        """Those that have waited may go on, or never will."""
        ids = [job.id]
        if job.size and not job.children:
            ids += [f"{job.id}:{index}" for index in range(job.size)]
        for dependent in [one for each in ids for one in self._dependents.pop(each, [])]:
            dependent.waits_for.difference_update(ids)
            if dependent.has_ended:
                continue
            if job.now.status == "SUCCEEDED":
                self.advance(dependent)
            else:
                self.move(dependent, "FAILED", reason=_DEPENDENCY_FAILED, stopped=time.time())
