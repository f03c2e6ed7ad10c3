"""`python -m kills.redeliver DAG RUN TASK FOLDER`: delivers a task twice, as a queue does that lost the receipt.

Makes the workload that the scheduler has made, from Airflow's database, says in the folder that it is `ready`, and runs
it as a worker does when the folder holds `deliver`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads import ExecuteTask
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select

READY = "ready"
DELIVER = "deliver"


def main() -> int:
    """Runs the workload; its supervisor raises when the server refuses it."""
    dag, run, task, folder = sys.argv[1:]
    with create_session() as session:
        which = select(TaskInstance).where(
            TaskInstance.dag_id == dag, TaskInstance.run_id == run, TaskInstance.task_id == task
        )
        workload = ExecuteTask.make(session.scalars(which).one(), generator=BaseExecutor().jwt_generator)
    (Path(folder) / READY).touch()
    while not (Path(folder) / DELIVER).exists():
        time.sleep(0.1)
    return BaseExecutor.run_workload(workload)


if __name__ == "__main__":
    sys.exit(main())
