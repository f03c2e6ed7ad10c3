"""What each cell must give, and why. The reasons are printed on the page, and so is what is left out.

They follow from how Airflow 3.3 ends tasks and from one rule: the pod belongs to the task instance, not to the process
that follows it, so it ends only if a user ended the task, and two pods of one task never run at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from kills.cell import Expected, Kill, Lines, Mode, Moment, Pods, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

RETRIES: Final = (0, 2)
_THREE: Final = (Moment.PENDING, Moment.RUNNING, Moment.ENDING)

_GOES_ON: Final = Expected(state="success", tries=1, pods=Pods.SAME, lines=Lines.ONCE)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a kill must give in all of its cells."""

    kill: Kill
    why: str
    expected: Expected
    retried: Expected | None = None
    """With retries, if that is something else."""
    deferred: tuple[Moment, ...] = _THREE
    """The moments at which it can happen to a deferred task."""
    sync: tuple[Moment, ...] = _THREE
    left_out: str = ""
    """Why some cells are missing."""

    def rows(self) -> Iterator[Row]:
        """Its cells."""
        for mode, moments in ((Mode.SYNC, self.sync), (Mode.DEFERRED, self.deferred)):
            for moment, retries in product(moments, RETRIES):
                found = self.retried if retries and self.retried is not None else self.expected
                # What ended by itself before the kill is whole in the log.
                if found.lines is Lines.SO_FAR and moment in {Moment.ENDING, Moment.BACK}:
                    found = Expected(state=found.state, tries=found.tries, pods=found.pods, lines=Lines.ONCE)
                yield Row(kill=self.kill, moment=moment, mode=mode, retries=retries, expected=found)


_NO_PROCESS: Final = (
    "A deferred task has no process in a worker while its pod is pending or running; it has one when it comes back."
)

RULES: Final = (
    Rule(
        kill=Kill.TASK_TERM,
        why="The server still says `running`, so the worker goes away and the task does not: it is rescheduled, which "
        "costs no retry, and goes on with its pod after the last line that was printed.",
        expected=_GOES_ON,
        deferred=(Moment.BACK,),
        left_out=_NO_PROCESS,
    ),
    Rule(
        kill=Kill.WORKER_TERM,
        why="Airflow's supervisor passes the signal on to the task, so this is the same.",
        expected=_GOES_ON,
        deferred=(Moment.BACK,),
        left_out=_NO_PROCESS,
    ),
    Rule(
        kill=Kill.TASK_KILL,
        why="Nothing runs in the task any more, so nobody can say what becomes of the pod, and it runs on. Without "
        "retries the task has failed; a retry takes the pod over, also one that has ended, and prints all of its lines "
        "in its own log.",
        expected=Expected(state="failed", tries=1, pods=Pods.KEPT, lines=Lines.SO_FAR),
        retried=Expected(state="success", tries=2, pods=Pods.ADOPTED, lines=Lines.ONCE),
        deferred=(Moment.BACK,),
        left_out=_NO_PROCESS,
    ),
    Rule(
        kill=Kill.TRIGGERER_TERM,
        why="Another triggerer goes on with the next line; nothing is told to the pod or to the task.",
        expected=_GOES_ON,
        sync=(),
        left_out="A synchronous task is in no triggerer.",
    ),
    Rule(
        kill=Kill.MARK_FAILED,
        why="A user ended the task: the pod is ended, retries or not. One whose base container had ended keeps its "
        "own outcome.",
        expected=Expected(state="failed", tries=1, pods=Pods.ENDED, lines=Lines.SO_FAR),
    ),
    Rule(
        kill=Kill.MARK_SUCCESS,
        why="The same, with the state that the user chose.",
        expected=Expected(state="success", tries=1, pods=Pods.ENDED, lines=Lines.SO_FAR),
    ),
    Rule(
        kill=Kill.CLEAR,
        why="A user wants the work done anew: the pod is ended, never taken over, and the next try's begins after "
        "that. A clear starts a try also without retries.",
        expected=Expected(state="success", tries=2, pods=Pods.REPLACED, lines=Lines.ONCE),
    ),
    Rule(
        kill=Kill.RECREATE,
        why="The run has the same id and its task the first try again, and yet it is another run: the old pod is "
        "ended, by the old process or by the new one's submit, and the new one begins after that. Airflow deletes "
        "only a run that is marked as ended, so that is done first; and the next one is made when the scheduler has "
        "heard of the old worker's end, which it otherwise takes for the new task's. Two tasks write one log "
        "file here.",
        expected=Expected(state="success", tries=1, pods=Pods.REPLACED, lines=Lines.NOT_JUDGED),
    ),
    Rule(
        kill=Kill.REDELIVER,
        why="Airflow's server lets no second process begin a task that is running or deferred. Nothing changes.",
        expected=_GOES_ON,
    ),
    Rule(
        kill=Kill.BROKER_AWAY,
        why="Whoever follows the pod waits; the pod does not notice.",
        expected=_GOES_ON,
    ),
)
ROWS: Final = tuple(row for rule in RULES for row in rule.rows())
