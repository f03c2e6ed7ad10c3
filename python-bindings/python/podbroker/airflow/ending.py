"""What a task does with its execution when it ends before the execution does.

A worker that is drained leaves the pod and lets Airflow start the task again: that costs no retry. A task that someone
else goes on with leaves the pod. A task that was really killed, or ran out of time, cancels; the last lines are waited
for as long as the supervisor's patience allows. Executions of earlier tries are ended here too.
"""

from __future__ import annotations

import contextlib
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NoReturn

from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException, AirflowRescheduleException
from podbroker.airflow.kill import ASK_SECONDS, Verdict, ask_state, verdict_of
from podbroker.airflow.pump import Pump
from podbroker.airflow.result import save_position

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk._shared.logging.types import Logger

    from podbroker.airflow.logs import LinePrinter
    from podbroker.airflow.session import Session

__all__ = ["cancel", "end_earlier", "settle_kill"]

RESCHEDULE_AFTER = timedelta(seconds=20)
"""When Airflow starts the task again after a drain. Airflow fails a task that is queued again before its scheduler has
heard that the worker before has ended (as in ``trigger.HOLD_SECONDS``); on a busy machine that took 15 s. The pod runs
on meanwhile, and no line is lost."""

LAST_LINES_SECONDS = 1.5
"""How long the last lines of a cancelled pod are waited for: what the supervisor's 5 s leave."""

EARLIER_SECONDS = 300.0
"""How long a cancelled execution of an earlier try may take to end: ten times a pod's default grace of 30 s."""


def settle_kill(
    *,
    context: Context,
    session: Session | None,
    follow: Pump | None,
    place: bytes,
    log: Logger,
    keep: bool,
    noun: str = "pod",
) -> NoReturn:
    """Find out why the task was told to end, do what that means for the pod, and raise.

    ``place`` is up to where the lines are printed. ``keep`` leaves the pod also when the task was really killed
    (``on_kill_action``). ``noun`` is what messages call it.
    """
    state = ask_state(context)
    verdict = verdict_of(state)
    name = session.name if session is not None else ""
    said = f"The task was told to end while its state is {state or 'none'}"
    if verdict is Verdict.RESCHEDULE:
        if place:
            _save_position(context, name=name, cursor=place, log=log)
        log.warning("%s: the worker goes away. The %s runs on, and the task goes on with it soon.", said, noun)
        again: Exception = AirflowRescheduleException(datetime.now(tz=timezone.utc) + RESCHEDULE_AFTER)  # type: ignore[no-untyped-call]
        raise again
    if verdict is Verdict.DETACH or keep:
        message = f"{said}: the {noun} is left running. Execution: {name or 'not known'}"
        error: ex.RemotePodError = (
            ex.RemotePodDetached(message) if verdict is Verdict.DETACH else ex.RemotePodKilled(message)
        )
        error.execution_name = name
        raise error
    ended = cancel(
        session=session, follow=follow, reason=f"The Airflow task was killed; its state is {state or 'none'}"
    )
    becomes = "is being ended" if ended or session is None else "could not be ended and may run on"
    killed = ex.RemotePodKilled(f"{said}: its {noun} {becomes}. Execution: {name or 'not known'}")
    killed.execution_name = name
    raise killed


def cancel(*, session: Session | None, follow: Pump | None, reason: str) -> bool:
    """Cancel the execution and show its last lines; acknowledge it if it ends meanwhile. True if the broker has it."""
    if session is None or not session.cancel(reason):
        return False
    if follow is not None:
        with contextlib.suppress(AirflowException):
            follow.run(follow.over, seconds=LAST_LINES_SECONDS)
            if follow.ended:
                session.release()
    return True


def end_earlier(session: Session, *, printer: LinePrinter, log: Logger, reason: str) -> None:
    """Cancel an execution of an earlier try and wait until it has ended, so that two never run at once."""
    execution = session.execution
    if execution is None:
        return
    if execution.cancel is None and execution.outcome is None and not session.cancel(reason):
        message = f"Execution {session.name} of an earlier try cannot be cancelled"
        raise ex.RemotePodBrokerUnavailable(message)
    log.info("Waiting until execution %s of an earlier try has ended", session.name)
    follow = Pump(
        open_watch=lambda cursor: session.watch(cursor=cursor, containers=None),
        execution=execution,
        printer=printer,
        log=log,
        checkpoint=session.checkpoint,
        noun=session.noun,
    )
    try:
        if not follow.run(follow.over, seconds=EARLIER_SECONDS):
            message = (
                f"Execution {session.name} of an earlier try was cancelled and has not ended in {EARLIER_SECONDS:.0f} s"
            )
            raise ex.RemotePodStartTimeout(message)
    except ex.RemotePodLost:
        return
    finally:
        follow.close()
    session.release()


def _save_position(context: Context, *, name: str, cursor: bytes, log: Logger) -> None:
    """Keep the place in the stream, in a thread of its own for the reason that ``kill.ask_state`` has."""

    def save() -> None:
        try:
            save_position(context, name=name, cursor=cursor)
        except Exception as error:  # noqa: BLE001 -- then the next process prints the lines again
            log.info("The place in the log was not kept; lines may be printed again: %s", error)

    saver = threading.Thread(target=save, name="podbroker-save-position", daemon=True)
    saver.start()
    saver.join(ASK_SECONDS)
