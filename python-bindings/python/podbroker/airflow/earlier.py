"""Decides what becomes of the executions that earlier tries of the same task instance left behind.

Pure: it is given what the broker lists. An earlier execution that is still active, or that succeeded while nobody
looked, is adopted when reattaching is on; otherwise it is ended before the new one starts, so that two never run at
once. Neither one of a dag run that was deleted and made anew, nor one from before a user's clear, is ever adopted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podbroker import ExecutionState, GroupAction

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from podbroker import Execution

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do before anything new is submitted."""

    adopt: Execution | None
    """Follow this one in place of a new one."""
    end: tuple[Execution, ...]
    """End these and wait until they have ended."""
    action: GroupAction
    """What the broker is to do about those that it knows better."""


def plan(
    executions: Iterable[Execution],
    *,
    own_id: str,
    reattach: bool,
    not_before: datetime | None,
    max_tries: int | None,
) -> Plan:
    """Choose among the executions of one task instance.

    ``own_id`` is the id of this try: when it exists, an earlier process of this try has decided already. ``not_before``
    is the start of the dag run; ``max_tries`` is the task instance's, which a clear raises and a retry leaves alone.
    """
    known = sorted(executions, key=_created, reverse=True)
    if any(execution.execution_id == own_id for execution in known):
        return Plan(adopt=None, end=(), action=GroupAction.ATTACH)
    adopt = None
    if reattach:
        adopt = next((each for each in known if _adoptable(each, not_before=not_before, max_tries=max_tries)), None)
    end = tuple(each for each in known if each is not adopt and not each.state.is_final)
    cleared = any(_is_from_before_a_clear(each, max_tries=max_tries) for each in known[:1])
    action = GroupAction.ATTACH if reattach and not cleared else GroupAction.CANCEL_FIRST
    return Plan(adopt=adopt, end=end, action=action)


def _adoptable(execution: Execution, *, not_before: datetime | None, max_tries: int | None) -> bool:
    if execution.cancel is not None or execution.release_time is not None:
        return False
    if execution.outcome is not None and execution.outcome.state is not ExecutionState.SUCCEEDED:
        return False
    if not_before is not None and execution.create_time is not None and execution.create_time < not_before:
        return False
    return not _is_from_before_a_clear(execution, max_tries=max_tries)


def _is_from_before_a_clear(execution: Execution, *, max_tries: int | None) -> bool:
    then = execution.labels.get("max_tries", "")
    return max_tries is not None and then.isdigit() and int(then) < max_tries


def _created(execution: Execution) -> tuple[float, str]:
    return (execution.create_time.timestamp() if execution.create_time else 0.0, execution.name)
