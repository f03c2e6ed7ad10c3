"""A triggerer that tells what it costs: `python -m bench.triggerer SPECIFICATION`.

The process with the event loop is Airflow's own (`TriggerRunner`), forked and spoken to by Airflow's own supervisor,
which writes the triggers' logs. In it a coroutine notes how late its turns come, and each event gets the moment at
which it was said. What the supervisor would ask of Airflow's database is answered from memory: which triggers there
are, and XComs. Nothing of a trigger is imported before the fork.

It says `ready` when all triggers run and `over` when each of them has ended, and reports when it is told to end.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
import uuid
from array import array
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from airflow._shared.observability.metrics import stats
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.executors.workloads.trigger import RunTrigger
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory, TriggerRunner, TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.observability.metrics import stats_utils
from airflow.sdk.execution_time.comms import DeleteXCom, GetXCom, SetXCom, XComResult

from bench.triggers import KINDS, MEASURED, PID, STARTED, Specification

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.triggers.base import BaseTrigger

#: How often the loop is looked at, in seconds.
INTERVAL: Final = 0.01


class Lateness:
    """How late the turns of a coroutine come that wants one each `INTERVAL`, and how much is the loop's own work."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.moments, self.late, self.own = array("d"), array("d"), array("d")

    async def note(self) -> None:
        """Notes, until it is cancelled."""
        while True:
            begin, worked = time.monotonic(), time.thread_time()
            await asyncio.sleep(INTERVAL)
            now = time.monotonic()
            late = now - begin - INTERVAL
            self.moments.append(now)
            self.late.append(late)
            # More than the thread has worked it cannot have held itself up; the rest is other threads and processes.
            self.own.append(min(late, time.thread_time() - worked))


class Stamped(deque[Any]):
    """Events, of which the moment is kept at which they were said."""

    def __init__(self) -> None:
        """None yet."""
        super().__init__()
        self.moments: dict[int, int] = {}
        """By trigger, the first: nanoseconds since 1970."""

    def append(self, entry: Any) -> None:  # noqa: ANN401  a TriggerEventEntry
        """Takes one."""
        self.moments.setdefault(entry.trigger_id, time.time_ns())
        super().append(entry)


class Runner(TriggerRunner):
    """The process with the event loop."""

    #: Set before the fork.
    folder = Path()
    expected = 0

    def __init__(self) -> None:
        """Nothing runs yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.events = self._stamped = Stamped()
        self._has_said = False

    async def arun(self) -> None:
        """Runs to the end, and writes down what was measured."""
        lateness = Lateness()
        noting = asyncio.create_task(lateness.note())
        try:
            await super().arun()  # type: ignore[no-untyped-call]
        finally:
            noting.cancel()
            measured = {
                "moments": list(lateness.moments),
                "late": list(lateness.late),
                "own": list(lateness.own),
                "told": self._stamped.moments,
            }
            (self.folder / MEASURED).write_text(json.dumps(measured))

    async def create_triggers(self) -> None:
        """Starts those that are new, and says so when all of them have been started."""
        await super().create_triggers()  # type: ignore[no-untyped-call]
        if not self._has_said and len(self.triggers) == self.expected:
            self._has_said = True
            (self.folder / STARTED).touch()


class Supervisor(TriggerRunnerSupervisor):
    """Airflow's supervisor, with what it asks of the database."""

    given: list[RunTrigger]
    told: Counter[tuple[int, str]]
    """How often each trigger said which status."""
    failed: int
    asked: Counter[str]
    """What the triggers asked of Airflow."""
    xcoms: dict[tuple[object, ...], Any]
    say: Callable[[str], None]
    words: list[str]
    """What is still to be said."""

    @classmethod
    def run_in_process(cls) -> None:
        """Is the other process."""
        Runner().run()  # type: ignore[no-untyped-call]

    def load_triggers(self) -> None:
        """Hands all triggers out at the first round, as a triggerer does that takes another one's over."""
        self.creating_triggers.extend(self.given)
        self.given.clear()
        if self.words[:1] == ["ready"] and (Runner.folder / STARTED).exists():
            self.say(self.words.pop(0))
        if self.words[:1] == ["over"] and len({trigger for trigger, _ in self.told}) + self.failed >= Runner.expected:
            self.say(self.words.pop(0))

    def on_trigger_event(self, trigger_id: int, event: Any) -> None:  # noqa: ANN401  a TriggerEvent
        """Counts."""
        self.told[trigger_id, event.payload["status"]] += 1

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:
        """Counts."""
        self.failed += 1
        print(trigger_id, *(exc or []), file=sys.stderr)

    def clean_unused(self) -> None:
        """There is no database to clean."""

    def heartbeat(self) -> None:
        """Nobody listens."""

    def emit_metrics(self) -> None:
        """Nobody listens."""

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:  # noqa: ANN401  a message of Airflow's
        self.asked[type(msg).__name__] += 1
        if not isinstance(msg, GetXCom | SetXCom | DeleteXCom):
            super()._handle_request(msg, log, req_id)
            return
        self._last_runner_comms = time.monotonic()
        place = (msg.dag_id, msg.run_id, msg.task_id, msg.map_index, msg.key)
        answer = XComResult(key=msg.key, value=self.xcoms.get(place)) if isinstance(msg, GetXCom) else None
        if isinstance(msg, SetXCom):
            self.xcoms[place] = msg.value
        if isinstance(msg, DeleteXCom):
            self.xcoms.pop(place, None)
        self.send_msg(answer, request_id=req_id, error=None)


def workload(number: int, trigger: BaseTrigger) -> RunTrigger:
    """What the supervisor gives the other process for a trigger of a mapped task."""
    path, kwargs = trigger.serialize()
    task = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        task_id="pod",
        dag_id="bench",
        run_id="bench",
        try_number=1,
        map_index=number,
        pool_slots=1,
        priority_weight=1,
    )
    return RunTrigger(id=number, classpath=path, encrypted_kwargs=Trigger.encrypt_kwargs(kwargs), ti=task)


def main() -> None:
    """Runs what the argument says."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # Airflow writes its own log to the standard output.
    os.dup2(2, 1)
    specification = Specification(**json.loads(Path(sys.argv[1]).read_text()))
    # A file for each trigger's log, and the peer's connections.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
    Runner.folder, Runner.expected = Path(specification.folder), len(specification.tasks)
    supervisor = Supervisor.start(logger=structlog.get_logger(), capacity=Runner.expected)
    supervisor.told, supervisor.asked, supervisor.failed, supervisor.xcoms = Counter(), Counter(), 0, {}
    supervisor.say = lambda word: print(word, file=answers)
    supervisor.words = ["ready", "over"]
    supervisor.given = []
    for number, task in enumerate(specification.tasks, start=1):
        made = workload(number, KINDS[specification.kind](task, specification))
        supervisor.given.append(made)
        ti: Any = made.ti
        supervisor.logger_cache[number] = TriggerLoggingFactory(log_path=f"{number}.log", ti=ti)
    (Runner.folder / PID).write_text(str(supervisor.pid))

    def stop(*_: object) -> None:
        supervisor.stop = True

    signal.signal(signal.SIGTERM, stop)
    try:
        supervisor.run()
    finally:
        supervisor.kill(escalation_delay=30, force=True)
    told = [[trigger, status, count] for (trigger, status), count in supervisor.told.items()]
    print(json.dumps({"told": told, "failed": supervisor.failed, "asked": supervisor.asked}), file=answers)


if __name__ == "__main__":
    main()
