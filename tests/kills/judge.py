"""Compares what came of a row with what must come: the task, its tries, its pods and the lines of its log."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from kills.cell import Lines, Moment, Pods
from kills.pods import runs, times
from podbroker import ExecutionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from kills.cell import Row
    from podbroker import Execution

__all__ = ["judge_executions", "judge_lines", "judge_pods"]


def judge_lines(lines: Iterable[str], expected: Lines) -> tuple[str, list[str]]:
    """What is said of the lines of one try, and what is wrong with them."""
    if expected is Lines.NOT_JUDGED:
        return expected.value, []
    kept = list(lines)
    numbers = [int(line.removeprefix("line ")) for line in kept if line.startswith("line ")]
    ends = [int(line.removeprefix("last ")) for line in kept if line.startswith("last ")]
    highest = max([*numbers, *ends], default=0)
    lost = highest - len(set(numbers))
    doubled = len(numbers) - len(set(numbers)) + max(0, len(ends) - 1)
    problems = []
    if lost:
        problems.append(f"{lost} of {highest} lines lost")
    if doubled:
        problems.append(f"{doubled} lines doubled")
    if not problems and numbers != sorted(numbers):
        problems.append("lines out of order")
    if expected is Lines.ONCE and not ends:
        problems.append(f"the last line is missing, {highest} came")
    said = f"{len(numbers)} lines, {', '.join(problems)}" if problems else f"{len(numbers)} lines, each once"
    return said, problems


def judge_executions(row: Row, executions: Sequence[Execution]) -> list[str]:
    """What is wrong with what the broker says of them in the end; the oldest one first."""
    pods = row.expected.pods
    problems = []
    if len(executions) != _number(pods):
        problems.append(f"{len(executions)} executions, should be {_number(pods)}")
    for at, execution in enumerate(executions):
        is_killed = pods is Pods.ENDED or (pods is Pods.REPLACED and at == 0)
        # An end before the kill stays what it was.
        ended_before = row.moment in {Moment.ENDING, Moment.BACK}
        state = ExecutionState.CANCELLED if is_killed and not ended_before else ExecutionState.SUCCEEDED
        if execution.state is not state:
            problems.append(f"execution {at + 1} is {execution.state}, should be {state}")
        if not is_killed and execution.cancel is not None:
            problems.append(f"execution {at + 1} was cancelled")
        released = execution.release_time is not None
        if not is_killed and released is (pods is Pods.KEPT):
            problems.append(f"execution {at + 1} was {'' if released else 'not '}released")
    return problems


def judge_pods(row: Row, pods: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with the pods that the witness has seen, the oldest one first."""
    problems = []
    number = _number(row.expected.pods)
    if len(pods) != number:
        problems.append(f"{len(pods)} pods made, should be {number}")
    problems += [f"pod {pod['metadata']['name']} runs" for pod in pods if runs(pod)]
    for earlier, later in pairwise(pods):
        (begun, ended), (next_begun, _) = times(earlier), times(later)
        if begun and next_begun and (not ended or next_begun < ended):
            problems.append(f"two pods ran at once: one until {ended or 'now'}, the next one from {next_begun}")
    return problems


def _number(pods: Pods) -> int:
    return 2 if pods is Pods.REPLACED else 1
