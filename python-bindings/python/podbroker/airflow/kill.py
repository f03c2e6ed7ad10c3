"""Finds out why a task process was told to end, and what that means for its pod.

The same SIGTERM comes when a user marks the task failed, when the task's heartbeat was refused, and when a worker is
drained. Only the server knows which: it is asked for the task instance's state. The question is never asked inside a
signal handler, since the channel to the supervisor is guarded by a lock that is not reentrant and that the interrupted
code may hold. It is asked in a thread of its own, so that a supervisor that does not answer costs ``ASK_SECONDS``.
"""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING, Any

from podbroker.airflow._compat import get_task_states

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["ASK_SECONDS", "NO_ANSWER", "Verdict", "ask_state", "state_from_server", "verdict_of"]

ASK_SECONDS = 2.0
"""How long the answer is waited for. The supervisor sends SIGKILL 5 s after SIGTERM; the rest is for the cancel."""

NO_ANSWER = "no answer"
"""What ``ask_state`` says when the server did not."""


class Verdict(Enum):
    """What the end of the task process means for the pod."""

    RESCHEDULE = "reschedule"
    """The worker goes away and the task goes on: leave the pod, let Airflow start the task again soon."""
    DETACH = "detach"
    """Someone else goes on with the task, or may: leave the pod."""
    CANCEL = "cancel"
    """The task was really killed: end the pod."""


_VERDICTS = {
    "running": Verdict.RESCHEDULE,
    "up_for_retry": Verdict.DETACH,
    "queued": Verdict.DETACH,
    "scheduled": Verdict.DETACH,
    "up_for_reschedule": Verdict.DETACH,
    NO_ANSWER: Verdict.DETACH,
    "failed": Verdict.CANCEL,
    "success": Verdict.CANCEL,
    "skipped": Verdict.CANCEL,
    "removed": Verdict.CANCEL,
    "restarting": Verdict.CANCEL,
    None: Verdict.CANCEL,
}


def verdict_of(state: str | None) -> Verdict:
    """Judge by the task instance's state; None is a task instance without a state. An unknown state leaves the pod."""
    return _VERDICTS.get(state, Verdict.DETACH)


def ask_state(context: Context, *, seconds: float = ASK_SECONDS) -> str | None:
    """Ask the server for the task instance's state. ``NO_ANSWER`` when none came in time, None when it has none."""
    answer: list[str | None] = []

    def ask() -> None:
        try:
            answer.append(state_from_server(context["ti"]))
        except Exception:  # noqa: BLE001 -- whatever went wrong, there is no answer, and the pod is left alone
            answer.append(NO_ANSWER)

    asker = threading.Thread(target=ask, name="podbroker-ask-state", daemon=True)
    asker.start()
    asker.join(seconds)
    return answer[0] if answer else NO_ANSWER


def state_from_server(ti: Any) -> str | None:  # noqa: ANN401 -- what each version calls a task instance
    """Ask for the task instance's state, and wait for the answer. None when it has none."""
    if hasattr(ti, "get_task_states") or not hasattr(ti, "current_state"):
        map_index = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
        # The task instance of a trigger does not have the method.
        ask = ti.get_task_states if hasattr(ti, "get_task_states") else get_task_states
        by_run = ask(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index)
        states = by_run.get(ti.run_id) or {}
        state = states.get(ti.task_id if map_index is None else f"{ti.task_id}_{map_index}")
    else:
        state = ti.current_state()
    return None if state is None else str(getattr(state, "value", state))
