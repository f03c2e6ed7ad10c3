"""A client of a broker that plays a script, and the words to write one.

A script is a list of what a watch gives: events, exceptions to raise, or functions to call in the place where a signal
would arrive.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

from podbroker import (
    Attempt,
    AttemptStarted,
    CancelIntent,
    ContainerInstance,
    ContainerOutcome,
    ContainerRole,
    End,
    Execution,
    ExecutionPage,
    ExecutionState,
    FailureClass,
    GapReason,
    LogChunk,
    LogGap,
    LogLine,
    LogStreamEnd,
    Notice,
    NoticeSeverity,
    Outcome,
    Result,
    ResultSource,
    ServerInfo,
    StateChanged,
    Submission,
    Target,
)
from podbroker.airflow.pump import POLL_SECONDS
from podbroker.exceptions import NotFoundError

S = ExecutionState
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)
POD = '{"metadata": {"name": "pod-1", "namespace": "there", "uid": "u"}, "spec": {"containers": []}}'


class RecordingLog:
    """Takes the place of a task's logger."""

    def __init__(self) -> None:
        self.records: list[tuple[int, str]] = []

    def log(self, level: int, message: str, *args: object, **_: object) -> None:
        self.records.append((level, message % args if args else message))

    def debug(self, message: str, *args: object) -> None:
        self.log(logging.DEBUG, message, *args)

    def info(self, message: str, *args: object) -> None:
        self.log(logging.INFO, message, *args)

    def warning(self, message: str, *args: object) -> None:
        self.log(logging.WARNING, message, *args)

    def error(self, message: str, *args: object) -> None:
        self.log(logging.ERROR, message, *args)

    @property
    def lines(self) -> list[str]:
        return [message for _, message in self.records]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class FakeTI:
    """A task instance of Airflow 3."""

    def __init__(self, **kwargs: Any) -> None:
        self.id = uuid.UUID("0193f000-0000-7000-8000-000000000001")
        self.dag_id, self.task_id, self.run_id = "dag", "task", "manual__2026-11-21"
        self.map_index, self.try_number, self.max_tries = -1, 1, 0
        self.xcom: dict[str, Any] = {}
        self.states: dict[str, dict[str, str | None]] | Exception = {self.run_id: {"task": "running"}}
        self.__dict__.update(kwargs)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcom[key] = value

    def get_task_states(self, **_: Any) -> dict[str, dict[str, str | None]]:
        if isinstance(self.states, Exception):
            raise self.states
        return self.states


class FakeStore(dict[str, Any]):
    """The task state store of Airflow 3.3."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


def make_context(**kwargs: Any) -> dict[str, Any]:
    ti = FakeTI(**kwargs)
    return {
        "ti": ti,
        "run_id": ti.run_id,
        "dag": SimpleNamespace(dag_id=ti.dag_id),
        "dag_run": SimpleNamespace(id=7, start_date=NOW - timedelta(hours=1)),
        "task_state_store": FakeStore(),
        "task_reschedule_count": 0,
    }


def attempt(number: int = 1, **kwargs: Any) -> Attempt:
    return Attempt(
        **{
            "number": number,
            "state": S.PENDING,
            "pod_name": f"pod-{number}",
            "pod_namespace": "there",
            "pod_uid": "u",
            "node_name": "",
            "batch_job_id": "",
        }
        | kwargs
    )


def execution(state: ExecutionState = S.PENDING, *, id: str = "own", **kwargs: Any) -> Execution:  # noqa: A002
    started = state not in {S.QUEUED, S.PENDING}
    return Execution(
        **{
            "name": f"targets/somewhere/executions/{id}",
            "execution_id": id,
            "target": "somewhere",
            "tenant": "t",
            "labels": {},
            "state": state,
            "state_reason": "",
            "outcome": None,
            "attempts": (attempt(),),
            "create_time": NOW,
            "start_time": NOW if started else None,
            "end_time": None,
            "spec_digest": "d",
            "cancel": None,
            "release_time": None,
            "pod_json": None,
        }
        | kwargs
    )


def container(name: str = "base", *, exit_code: int | None = 0, **kwargs: Any) -> ContainerOutcome:
    return ContainerOutcome(
        **{
            "container": name,
            "role": ContainerRole.DECIDING,
            "exit_code": exit_code,
            "signal": None,
            "reason": "Completed" if exit_code == 0 else "Error",
            "message": "",
            "restart_count": 0,
            "start_time": NOW,
            "end_time": NOW,
        }
        | kwargs
    )


def succeeded(**kwargs: Any) -> Outcome:
    return Outcome(
        **{
            "state": S.SUCCEEDED,
            "failure_class": None,
            "reason": "Completed",
            "message": "",
            "containers": (container(),),
            "exit_code": 0,
        }
        | kwargs
    )


def failed(
    failure_class: FailureClass = FailureClass.APPLICATION,
    *,
    exit_code: int | None = 7,
    message: str = "",
    **kwargs: Any,
) -> Outcome:
    return Outcome(
        **{
            "state": S.CANCELLED if failure_class is FailureClass.CANCELLED_BY_CALLER else S.FAILED,
            "failure_class": failure_class,
            "reason": "Error",
            "message": "It did not work.",
            "containers": (container(exit_code=exit_code, message=message),),
            "exit_code": exit_code,
        }
        | kwargs
    )


def state(now: ExecutionState, **kwargs: Any) -> StateChanged:
    return StateChanged(cursor=b"s", execution=execution(now, **kwargs))


def started() -> AttemptStarted:
    return AttemptStarted(cursor=b"a", attempt=attempt())


def instance(name: str = "base", *, role: ContainerRole = ContainerRole.DECIDING) -> ContainerInstance:
    return ContainerInstance(attempt=1, container=name, restart=0, role=role)


def line(text: str | bytes, *, continues: bool = False, partial: bool = False) -> LogLine:
    content = text.encode() if isinstance(text, str) else text
    return LogLine(time_ns=1_000_000_000, content=content, continues=continues, partial=partial)


def lines(
    *texts: str | bytes | LogLine,
    name: str = "base",
    role: ContainerRole = ContainerRole.DECIDING,
    cursor: bytes = b"l",
) -> LogChunk:
    made = tuple(text if isinstance(text, LogLine) else line(text) for text in texts)
    return LogChunk(cursor=cursor, instance=instance(name, role=role), lines=made, line_cursor=b"")


def stream_end() -> LogStreamEnd:
    return LogStreamEnd(cursor=b"e", instance=instance(), complete=True)


def gap(**kwargs: Any) -> LogGap:
    return LogGap(
        **{
            "cursor": b"g",
            "instance": instance(),
            "reason": GapReason.ROTATED,
            "after": None,
            "before": None,
            "lines_at_least": 0,
            "message": "",
        }
        | kwargs
    )


def notice(code: str, message: str, severity: NoticeSeverity = NoticeSeverity.INFO) -> Notice:
    return Notice(cursor=b"n", code=code, message=message, severity=severity)


def result(content: bytes = b"", *, problem: str = "") -> Result:
    return Result(cursor=b"r", source=ResultSource.SIDECAR, content=content, problem=problem)


def end(outcome: Outcome | None = None, **kwargs: Any) -> End:
    outcome = outcome or succeeded()
    return End(cursor=b"end", execution=execution(outcome.state, outcome=outcome, end_time=NOW, **kwargs))


class FakeWatch:
    """Plays one script. When it is at its end it waits, as a quiet stream does, and says so."""

    def __init__(self, script: list[Any], *, cursor: bytes = b"") -> None:
        self.script = script
        self.cursor = cursor
        self.ended = False
        self.closed = False
        self.woken = False

    def poll(self, timeout: float | None = None) -> Any:
        if self.woken or not self.script:
            if not self.woken and not self.ended:
                assert timeout is not None
                assert timeout < POLL_SECONDS, "the task waits for an event that the script does not have"
                time.sleep(timeout)
            self.woken = False
            return None
        step = self.script.pop(0)
        if isinstance(step, StopIteration):
            self.ended = True
            return None
        if isinstance(step, BaseException):
            self.ended = isinstance(step, Exception)
            raise step
        if isinstance(step, Callable):
            step()
            return None
        self.cursor = step.cursor
        self.ended = isinstance(step, End)
        return step

    def wake(self) -> None:
        self.woken = True

    def close(self) -> None:
        self.closed = True


class FakeClient:
    """Plays a broker that knows some executions."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.submits: list[dict[str, Any]] = []
        self.refusals: list[Exception] = []
        self.scripts: dict[str, list[Any]] = {}
        self.script: list[Any] = []
        self.log: list[Any] = []
        self.watches: list[FakeWatch] = []
        self.watched: list[dict[str, Any]] = []
        self.known: dict[str, Execution] = {}
        self.after_cancel: list[Any] = []
        self.release_error: Exception | None = None
        self.cancel_error: Exception | None = None
        self.features: tuple[str, ...] = ()
        self.attaches_to: Execution | None = None
        self.made: dict[str, Any] = {}
        self.places: tuple[Target, ...] = ()

    def did(self, verb: str) -> list[Any]:
        return [what for done, what in self.calls if done == verb]

    def submit(self, **kwargs: Any) -> Submission:
        self.calls.append(("submit", kwargs["execution_id"]))
        self.submits.append(kwargs)
        if self.refusals:
            refusal = self.refusals.pop(0)
            if isinstance(refusal, Callable):
                refusal()
            else:
                raise refusal
        if self.attaches_to is not None:
            return Submission(execution=self.attaches_to, claim="later claim", created=False)
        name = f"targets/somewhere/executions/{kwargs['execution_id']}"
        created = name not in self.known
        if created and kwargs.get("must_exist"):
            raise NotFoundError("no such execution", reason="NO_SUCH_EXECUTION")
        if created:
            self.known[name] = execution(id=kwargs["execution_id"], labels=kwargs["labels"], **self.made)
        return Submission(execution=self.known[name], claim="claim", created=created)

    def server_info(self) -> ServerInfo:
        return ServerInfo(
            version="0",
            instance="i",
            features=self.features,
            max_request_bytes=0,
            max_manifest_bytes=0,
            caller_subject="c",
            caller_tenant="t",
        )

    def targets(self) -> tuple[Target, ...]:
        self.calls.append(("targets", None))
        return self.places

    def get(self, name: str, *, full: bool = False) -> Execution:
        self.calls.append(("get", name))
        if name not in self.known:
            raise NotFoundError("no such execution", reason="NO_SUCH_EXECUTION")
        return replace(self.known[name], pod_json=POD.encode()) if full else self.known[name]

    def list(self, target: object, *, labels: dict[str, str], page_size: int, page_token: str) -> ExecutionPage:
        self.calls.append(("list", (target, labels, page_size, page_token)))
        return ExecutionPage(executions=tuple(self.known.values()), next_page_token="")

    def watch(self, name: str, **kwargs: Any) -> FakeWatch:
        self.calls.append(("watch", name))
        self.watched.append({"name": name, **kwargs})
        if kwargs.get("follow") is False:
            return FakeWatch([*self.log, StopIteration()])
        watch = FakeWatch(self.scripts.get(name, self.script), cursor=kwargs.get("cursor", b""))
        self.watches.append(watch)
        return watch

    def cancel(self, name: str, *, claim: str = "", reason: str = "") -> Execution:
        self.calls.append(("cancel", (name, claim, reason)))
        if self.cancel_error is not None:
            raise self.cancel_error
        for watch in self.watches:
            watch.script.extend(self.after_cancel)
        return self.known.get(name, execution())

    def release(self, name: str, *, claim: str = "") -> Execution:
        self.calls.append(("release", (name, claim)))
        if self.release_error is not None:
            raise self.release_error
        return self.known.get(name, execution())

    async def submit_async(self, **kwargs: Any) -> Submission:
        return self.submit(**kwargs)

    async def server_info_async(self) -> ServerInfo:
        return self.server_info()

    async def get_async(self, name: str, *, full: bool = False) -> Execution:
        return self.get(name, full=full)

    async def cancel_async(self, name: str, *, claim: str = "", reason: str = "") -> Execution:
        execution = self.cancel(name, claim=claim, reason=reason)
        self.script.extend(self.after_cancel)
        return execution

    async def release_async(self, name: str, *, claim: str = "") -> Execution:
        return self.release(name, claim=claim)


def cancelled_intent() -> CancelIntent:
    return CancelIntent(requested_by="x", reason="", failure_class=FailureClass.CANCELLED_BY_CALLER, request_time=NOW)
