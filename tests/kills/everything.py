"""One DAG with a task of every kind, a hundred mapped ones among them: each value and each line there, each once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from e2e.airflow import Run
    from kills.stage import Stage

#: How many mapped tasks; every second one is deferred.
MAPPED: Final = 100
#: Seconds.
_LIMIT: Final = 1200.0


@dataclass(kw_only=True)
class Everything:
    """What came of it."""

    seconds: float = 0.0
    states: dict[str, int] = field(default_factory=dict)
    """How many tasks ended in each state."""
    problems: list[str] = field(default_factory=list)
    again: int = 0
    """How many tries Airflow has repeated, as it does on a machine that is too busy."""
    logs: dict[str, list[str]] = field(default_factory=dict)
    """Of the tasks whose lines are not there once."""

    @property
    def holds(self) -> bool:
        """Whether all is as it must be."""
        return not self.problems


def play(stage: Stage) -> Everything:
    """Runs the DAG to its end and looks at all of its tasks."""
    begin = time.monotonic()
    run = stage.airflow.trigger("everything", run_id="everything")
    found = Everything()
    try:
        if (state := run.finish(within=_LIMIT)) != "success":
            found.problems.append(f"the run is {state}")
        _look(run, stage, found)
    except Exception as error:  # noqa: BLE001  the matrix is printed whatever happens here
        found.problems.append(f"{type(error).__name__}: {error}"[:300])
    found.seconds = time.monotonic() - begin
    return found


def _look(run: Run, stage: Stage, found: Everything) -> None:
    states = run.states()
    for state in states.values():
        found.states[state] = found.states.get(state, 0) + 1
    found.problems += [f"{task} is {state}" for task, state in states.items() if state != "success"]
    if not found.problems:
        values = {task: run.value(task) for task in _VALUES}
        if values != _VALUES:
            found.problems.append(f"the values are {values}, should be {_VALUES}")
        started = run.task("started")
        if started["try_number"] == 1 and started["pid"] is not None:
            found.problems.append("a worker had the task that starts in the triggerer")
    lines: dict[tuple[str, int | None], str] = {(task, None): f"line of {what}" for task, what in _LINES.items()}
    lines |= {("mapped", at): f"line of {at}" for at in range(MAPPED)}
    for (task, at), text in lines.items():
        log = [line for one in range(1, 5) for line in run.log(task, one, map_index=at)]
        counts = _counts(log, text)
        if max(counts) > 1 or not sum(counts):
            name = f"{task}{'' if at is None else f'[{at}]'}"
            found.problems.append(f"{name}: its line is there {' and again '.join(map(str, counts))} times")
            found.logs[name] = log
    # A try that Airflow itself has failed after its pod was released has another pod.
    pods, tasks = len(stage.witness.of(run.run)), MAPPED + len(_LINES)
    found.again = sum(run.tries().values()) - len(states)
    if not tasks <= pods <= tasks + found.again:
        found.problems.append(f"{pods} pods made, should be {tasks}, and {found.again} tries were repeated")


def _counts(log: list[str], text: str) -> list[int]:
    """How often a line is there, up to each announcement that lines may come again, and after the last."""
    counts = [0]
    for line in log:
        if "may come again" in line:
            counts.append(0)
        counts[-1] += line.rpartition("] ")[2] == text
    return counts


#: What the single tasks hand back, and what their pods print.
_VALUES: Final = {"synchronous": 1, "deferred": 2, "started": 3, "function": 5, "command": 6, "total": 4950}
_LINES: Final = {"synchronous": "1", "deferred": "2", "started": "3", "function": "three", "command": "6"}
