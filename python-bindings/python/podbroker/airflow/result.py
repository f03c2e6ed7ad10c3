"""Reads the value that was handed back, and hands the place in the stream from one process of a task to the next.

A value that was asked for and did not arrive whole is an error of its own, raised only when what was run has succeeded.
A file that was never written means None, as with upstream.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from podbroker.airflow._compat import AirflowException
from podbroker.airflow.exceptions import RemotePodResultError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk._shared.logging.types import Logger

    from podbroker import ResultSource
    from podbroker.airflow._compat import KubernetesPodOperator
    from podbroker.airflow.progress import Progress
    from podbroker.airflow.pump import Pump

__all__ = ["push_result", "read_result", "result_error", "save_position", "source_of_result", "take_position"]

POSITION_KEY = "podbroker_position"
"""Where the task state store of Airflow 3.3 keeps the place in the stream over a reschedule. Processes of two versions
may meet here, so the name and the two keys below stay."""

SHOWN_CHARACTERS = 200
"""How much of a broken value an error repeats."""


def source_of_result(given: ResultSource | str, *, known: Sequence[ResultSource]) -> ResultSource:
    """Check where an operator is to take its value from.

    Raises:
        AirflowException: It cannot be had from there; the message says from where it can.

    """
    source = next((each for each in known if each == given), None)
    if source is None:
        message = f"result_source is one of {', '.join(each.value for each in known)}, and not {given}"
        raise AirflowException(message)
    return source


def read_result(follow: Pump | Progress, *, log: Logger, noun: str = "pod") -> tuple[Any, RemotePodResultError | None]:
    """Give the value, and what is wrong with it. ``noun`` is what messages call what was run."""
    result = follow.result
    if result is None:
        return None, result_error(follow, "The broker sent no result, although the task asks for one")
    if result.problem:
        if follow.result_missing:
            log.info("The %s wrote no result: %s", noun, result.problem)
            return None, None
        return None, result_error(follow, f"The {noun}'s result cannot be had: {result.problem}")
    if not result.content.strip():
        log.info("The %s's result file is empty.", noun)
        return None, None
    try:
        return json.loads(result.content), None
    except (ValueError, RecursionError) as error:
        shown = result.content[:SHOWN_CHARACTERS].decode("utf-8", errors="backslashreplace")
        return None, result_error(follow, f"The {noun}'s result is not JSON ({error}). It begins with: {shown}")


def push_result(operator: KubernetesPodOperator, context: Context | None, value: Any) -> None:  # noqa: ANN401 -- JSON
    """Push the value of a pod that failed; when the task succeeds, Airflow pushes what ``execute`` returns."""
    if value is None or context is None:
        return
    if hasattr(operator, "_push_xcom_with_fan_out"):
        try:
            operator._push_xcom_with_fan_out(context["ti"], value)  # noqa: SLF001 -- of our own base class
        except TypeError as error:
            operator.log.warning("The pod's value was not pushed: %s", error)
    else:  # older providers
        context["ti"].xcom_push(key="return_value", value=value)


def save_position(context: Context, *, name: str, cursor: bytes) -> None:
    """Keep the place in the stream for the next process of the task, where Airflow can (3.3 and later)."""
    store: Any = context.get("task_state_store")
    if store is not None and cursor:
        store.set(POSITION_KEY, {"name": name, "cursor": base64.b64encode(cursor).decode("ascii")})


def take_position(context: Context, *, name: str) -> bytes:
    """Read the place in the stream that an earlier process kept; empty when there is none for this execution."""
    store: Any = context.get("task_state_store")
    if store is None:
        return b""
    kept = store.get(POSITION_KEY)
    if not isinstance(kept, dict) or kept.get("name") != name:
        return b""
    try:
        return base64.b64decode(str(kept.get("cursor", "")), validate=True)
    except binascii.Error:
        return b""


def result_error(follow: Pump | Progress, message: str) -> RemotePodResultError:
    """Say what is wrong with a value."""
    error = RemotePodResultError(message)
    error.execution_name = follow.execution.name
    error.outcome = follow.outcome
    return error
