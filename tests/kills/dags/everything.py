"""One DAG with a task of every kind, and a hundred mapped ones, every second of them deferred."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from kills.everything import MAPPED

from e2e.interpreter import MOUNTS, PYTHON, VOLUMES
from e2e.manifests import IMAGE
from podbroker.airflow.operator import RemotePodOperator

COMMON: dict[str, Any] = {"image": IMAGE, "cmds": ["sh", "-c"], "do_xcom_push": True, "startup_timeout_seconds": 900}


def script(value: int) -> str:
    """Prints a line and hands a number back."""
    return f"echo line of {value}; echo {value} > /airflow/xcom/return.json"


# A start that Airflow itself has failed, as it does on a machine that is too busy, is tried again.
AGAIN = {"retries": 3, "retry_delay": timedelta(seconds=1)}

with DAG("everything", schedule=None, max_active_tasks=100, default_args=AGAIN):
    synchronous = RemotePodOperator(task_id="synchronous", arguments=[script(1)], **COMMON)
    deferred = RemotePodOperator(task_id="deferred", arguments=[script(2)], deferrable=True, **COMMON)

    started = RemotePodOperator(task_id="started", arguments=[script(3)], start_from_trigger=True, **COMMON)

    @task.remote_pod(image=IMAGE, python=PYTHON, volumes=VOLUMES, volume_mounts=MOUNTS, do_xcom_push=True)
    def function(word: str) -> int:
        """Runs in the pod."""
        print("line of", word)
        return len(word)

    @task.remote_pod_cmd(image=IMAGE, do_xcom_push=True)
    def command(length: int) -> list[str]:
        """Says in the worker what runs in the pod."""
        return ["sh", "-c", script(length + 1)]

    mapped = RemotePodOperator.partial(task_id="mapped", **COMMON).expand_kwargs(
        [{"arguments": [script(at)], "deferrable": at % 2 == 1} for at in range(MAPPED)]
    )

    @task
    def total(values: list[int]) -> int:
        """Reads what all of them handed back."""
        return sum(values)

    decorated = command(function("three"))  # type: ignore[arg-type]  # Airflow puts the value there
    [synchronous, deferred, started, decorated] >> mapped
    total(mapped.output)  # type: ignore[arg-type]  # likewise
