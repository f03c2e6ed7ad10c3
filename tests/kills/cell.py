"""One cell of the matrix, what must come of it, and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

#: The label of the pod that pods of a row wait for that begin as pending; its value is the name of the row. A label
#: of the node would not do: the scheduler sees it sooner than the kubelet, which then rejects the pod.
OPENS_LABEL: Final = "podbroker.test/opens"


class Kill(enum.Enum):
    """What ends a process of the task, or tries to; the value is what the page calls it."""

    TASK_TERM = "SIGTERM to the task"
    WORKER_TERM = "SIGTERM to the worker"
    TASK_KILL = "SIGKILL to the task"
    TRIGGERER_TERM = "SIGTERM to the triggerer"
    MARK_FAILED = "marked failed"
    MARK_SUCCESS = "marked success"
    CLEAR = "cleared"
    RECREATE = "DagRun deleted and made again"
    REDELIVER = "task delivered twice"
    BROKER_AWAY = "broker away for 2 minutes"


class Moment(enum.Enum):
    """What the pod does when it happens."""

    PENDING = "pending"
    """No node has it yet."""
    RUNNING = "running"
    """The base container prints."""
    ENDING = "ending"
    """The base container has ended with code 0, another one still prints, and nobody has acknowledged the end."""
    BACK = "ending, back in a worker"
    """The trigger has said that the pod has ended, and a worker settles that; for deferred tasks only."""


class Mode(enum.Enum):
    """Where the pod is followed."""

    SYNC = "sync"
    DEFERRED = "deferrable"


class Pods(enum.Enum):
    """What must have become of the pods in the end; the value is what the page calls it."""

    SAME = "the same, released"
    """One, which the task went on with; its end was acknowledged, so the broker deletes it."""
    ADOPTED = "the same, adopted, released"
    """One, which the next try took over."""
    ENDED = "ended"
    """One, which was cancelled and runs no longer."""
    KEPT = "runs on, kept"
    """One, which ran to its own end and was not acknowledged."""
    REPLACED = "ended, then another, released"
    """Two; the second one began after the first had ended."""


class Lines(enum.Enum):
    """What the pod's lines must look like in the log of the last try."""

    ONCE = "each once"
    """All of them, in order, each once."""
    SO_FAR = "each once, up to the kill"
    """From the first on without a hole, each once."""
    NOT_JUDGED = "not judged"
    """Two tasks write one file, so what is doubled there proves nothing."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a cell must give."""

    state: str
    """Of the task."""
    tries: int
    pods: Pods
    lines: Lines


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell that is played."""

    kill: Kill
    moment: Moment
    mode: Mode
    retries: int
    expected: Expected

    @property
    def name(self) -> str:
        """What the DAG run is called: a label's value as it stands."""
        words = f"{self.kill.value} {self.moment.value} {self.mode.value} r{self.retries}".lower()
        return "-".join("".join(one if one.isalnum() else " " for one in words).split())[:63]

    @property
    def dag(self) -> str:
        """The DAG that it is played with."""
        return dag_id(self.mode, retries=self.retries, moment=self.moment)


@dataclass(kw_only=True)
class Verdict:
    """What came of a row."""

    row: Row
    state: str = ""
    tries: int = 0
    pods: str = ""
    lines: str = ""
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    log: str = ""
    """What the task has written, for a row that failed."""

    @property
    def holds(self) -> bool:
        """Whether all is as it must be."""
        return not self.problems


def dag_id(mode: Mode, *, retries: int, moment: Moment) -> str:
    """The DAG for such cells; see `kills/dags/killed.py`."""
    return f"{mode.value}-retries{retries}-{moment.name.lower()}"
