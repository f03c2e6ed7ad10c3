"""Tasks that start in the triggerer, brought there by Airflow's own code, which stores and reads them."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from podbroker.airflow.start_trigger import RemotePodStartTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripted import FakeClient
    from versions import DAG

TI = uuid.UUID("0193f000-0000-7000-8000-000000000001")
STARTED = datetime(2026, 11, 21, 11, 0, tzinfo=timezone.utc)


def stored(dag: DAG) -> dict[str, Any]:
    """What Airflow keeps of a DAG."""
    from airflow.serialization.serialized_objects import DagSerialization

    return json.loads(json.dumps(DagSerialization.to_dict(dag)))


def scheduled(dag: DAG, task_id: str = "task") -> Any:
    """A task as the scheduler knows it."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(stored(dag)).get_task(task_id)


def row_of(dag: DAG) -> dict[str, Any]:
    """What the triggerer reads of the row that the scheduler has made."""
    from airflow.models.trigger import Trigger
    from airflow.serialization.decoders import smart_decode_trigger_kwargs

    args = scheduled(dag).start_trigger_args
    row = Trigger(classpath=args.trigger_cls, kwargs=args.trigger_kwargs)
    return {name: smart_decode_trigger_kwargs(value) for name, value in row.kwargs.items()}


def started(dag: DAG, *, try_number: int = 1) -> RemotePodStartTrigger:
    """The trigger as Airflow makes it, with its context."""
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    ti = TaskInstanceDTO(
        id=TI,
        dag_version_id=TI,
        task_id="task",
        dag_id=dag.dag_id,
        run_id="manual__2026-11-21",
        try_number=try_number,
        map_index=-1,
        pool_slots=1,
        queue="default",
        priority_weight=1,
    )
    run = {
        "dag_id": dag.dag_id,
        "run_id": ti.run_id,
        "logical_date": STARTED,
        "data_interval_start": STARTED,
        "data_interval_end": STARTED,
        "run_after": STARTED,
        "start_date": STARTED,
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "conf": {"word": "hello"},
        "consumed_asset_events": [],
        "partition_key": None,
    }
    made = RemotePodStartTrigger(**row_of(dag))
    runtime = TriggerRunner.create_runtime_ti(ti, stored(dag), run)
    made.task_instance = runtime
    made.trigger_id = 1
    made.render_template_fields(context=runtime.get_template_context())
    return made


class Driver:
    """Runs a trigger as a triggerer does."""

    def __init__(self, client: FakeClient, many: Any) -> None:
        self.client = client
        self.many = many

    def run(self, trigger: RemotePodStartTrigger, *, stored: bool = True) -> Any:
        """Gives its event. Airflow takes the trigger away as soon as that is stored; or it stops before."""
        from airflow.jobs.triggerer_job_runner import _USER_ACTION_CANCEL_MSG

        async def main() -> Any:
            events: list[Any] = []
            running = asyncio.create_task(self._drive(trigger, events, kill=False))
            async with asyncio.timeout(20):
                while not events and not running.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                while not running.done():
                    running.cancel(*([_USER_ACTION_CANCEL_MSG] if stored else []))
                    await asyncio.sleep(0.01)
            await asyncio.gather(running, return_exceptions=True)
            (event,) = events
            return event

        return asyncio.run(main())

    def stop(self, trigger: RemotePodStartTrigger, *, when: Callable[[], bool], kill: bool) -> list[Any]:
        """Stops it at a moment, as a triggerer that ends or a user's kill does. Gives its events."""

        async def main() -> list[Any]:
            events: list[Any] = []
            running = asyncio.create_task(self._drive(trigger, events, kill=kill))
            async with asyncio.timeout(20):
                while not when():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return events

        return asyncio.run(main())

    @staticmethod
    async def _drive(trigger: RemotePodStartTrigger, events: list[Any], *, kill: bool) -> None:
        try:
            async for event in trigger.run():
                events.append(event)  # noqa: PERF401 -- each at its moment
        except asyncio.CancelledError:
            if kill:
                await trigger.on_kill()
            raise
        finally:
            await trigger.cleanup()
