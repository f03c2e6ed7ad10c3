"""A job, and how it stood at any time: answers may be about the past."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .definitions import Definition
    from .places import Environment, Queue

STATES: Final = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")
#: A job in one of these has no pod yet.
EARLY: Final = ("SUBMITTED", "PENDING", "RUNNABLE")
ENDED: Final = ("SUCCEEDED", "FAILED")


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of an attempt, as the pod's status tells it."""

    name: str
    id: str = ""
    exit_code: int | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One pod that is made for a job. Times are in seconds since the epoch."""

    #: From 1.
    number: int
    pod_name: str
    namespace: str
    node: str = ""
    started: float | None = None
    stopped: float | None = None
    reason: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()

    @property
    def failed_container(self) -> Container | None:
        """The first that has not ended with 0."""
        both = (*self.init_containers, *self.containers)
        return next((one for one in both if one.exit_code not in (None, 0)), None)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a job stands."""

    status: str = "SUBMITTED"
    reason: str = ""
    started: float | None = None
    stopped: float | None = None
    is_cancelled: bool = False
    is_terminated: bool = False
    #: The pod that there is, or that was the last.
    current: Attempt | None = None
    #: Those that have ended, oldest first.
    attempts: tuple[Attempt, ...] = ()
    #: Of an array: how many stand where, in the order of `STATES`.
    children: tuple[int, ...] = ()


@dataclass(eq=False, kw_only=True)
class Job:
    """A job, an array of jobs, or a child of one."""

    id: str
    #: Grows from job to job.
    number: int
    created: float
    request: dict[str, Any]
    queue: Queue
    environment: Environment
    definition: Definition
    #: Properties of its pods: the definition's with the overrides in, parameters put in.
    pod: dict[str, Any]
    tags: dict[str, str]
    parent: Job | None = None
    index: int | None = None
    #: Of an array; empty until it is past PENDING's dependencies.
    children: list[Job] = field(default_factory=list)
    #: Ids of jobs that must have succeeded before.
    waits_for: set[str] = field(default_factory=set)
    #: Why the current pod is being ended: `terminated`, `timeout` or `lost`, and in which words.
    ending: tuple[str, str] | None = None
    #: When it came into its status.
    entered: float = 0.0

    def __post_init__(self) -> None:
        """It has just been accepted."""
        self.now = Standing(children=(0,) * len(STATES) if self.size else ())
        self.entered = self.created
        self._times, self._standings = [self.created], [self.now]

    @property
    def name(self) -> str:
        """As it was submitted; children have their parent's."""
        return str(self.request["jobName"])

    @property
    def arn(self) -> str:
        """With its id in it."""
        return f"arn:aws:batch:{self.queue.region}:{self.queue.account}:job/{self.id}"

    @property
    def size(self) -> int:
        """Of an array; 0 for others, its children among them."""
        return 0 if self.parent is not None else int(self.request.get("arrayProperties", {}).get("size", 0))

    @property
    def strategy(self) -> dict[str, Any]:
        """How it is retried."""
        found: dict[str, Any] = self.request.get("retryStrategy") or self.definition.request.get("retryStrategy", {})
        return found

    @property
    def timeout(self) -> int | None:
        """Seconds an attempt may take."""
        given = self.request.get("timeout") or self.definition.request.get("timeout", {})
        found: int | None = given.get("attemptDurationSeconds")
        return found

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.now.status in ENDED

    def change(self, time: float, **changes: Any) -> None:  # noqa: ANN401  fields of a standing
        """From now on it stands otherwise."""
        if changes.get("status", self.now.status) != self.now.status:
            self.entered = time
        self.now = replace(self.now, **changes)
        self._times.append(time)
        self._standings.append(self.now)

    def at(self, time: float) -> Standing | None:
        """How it stood then; None before it was there."""
        found = bisect_right(self._times, time)
        return self._standings[found - 1] if found else None

    @property
    def first(self) -> Standing:
        """How it stood when it was accepted."""
        return self._standings[0]
