"""Task instances and the context of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.models import TaskInstance
from airflow.sdk.api.datamodels._generated import DagRun, TIRunContext
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

if TYPE_CHECKING:
    from uuid import UUID

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.abstractoperator import AbstractOperator
    from sqlalchemy.orm import Session


def create_task_instance(
    task: AbstractOperator, *, run_id: str | None = None, dag_version_id: UUID | None = None, **kwargs: Any
) -> TaskInstance:
    """Make a row for a task; it is not added to any session."""
    return TaskInstance(task=task, run_id=run_id, dag_version_id=dag_version_id, **kwargs)


def get_template_context(ti: TaskInstance, task: AbstractOperator, *, session: Session | None = None) -> Context:
    """Give what Airflow gives to ``execute``, with the database's task instance in the place of the supervisor's."""
    if session is not None:
        session.flush()
    ti.refresh_from_task(task)
    run = ti.dag_run
    runtime = RuntimeTaskInstance.model_construct(
        id=ti.id,
        task_id=ti.task_id,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        map_index=ti.map_index,
        try_number=ti.try_number,
        max_tries=ti.max_tries,
        start_date=ti.start_date,
        task=task,
    )
    runtime._ti_context_from_server = TIRunContext(
        dag_run=DagRun(
            dag_id=run.dag_id,
            run_id=run.run_id,
            logical_date=run.logical_date,
            data_interval_start=run.data_interval_start,
            data_interval_end=run.data_interval_end,
            run_after=run.run_after,
            start_date=run.start_date,
            end_date=run.end_date,
            run_type=run.run_type,
            state=run.state,
            conf=run.conf,
            consumed_asset_events=[],
            partition_key=None,
        ),
        max_tries=ti.max_tries,
    )
    context = runtime.get_template_context()
    context.update({"ti": ti, "task_instance": ti, "dag_run": run})
    return context
