"""One DAG of pods and of jobs of AWS Batch: each kind of task, in a worker and deferred.

Target `local` runs pods, target `batch` runs jobs. The definition `jobs` has a container `main`; that of the target, of
which pods become overrides, has one called `base`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from airflow.sdk import DAG

from e2e.manifests import IMAGE
from e2e.twin import arguments
from podbroker import ResultSource
from podbroker.airflow import BatchOperator, RemotePodOperator

#: Ends two seconds after it was told to, so that a word of its end that comes too early is seen.
ENDLESS: Final = "trap 'echo told; sleep 2; echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
VALUE: Final = '{"rows": 3, "run": "{{ run_id }}"}'
FILE: Final = f"echo one; echo '{VALUE}' > /airflow/xcom/return.json; echo two"
MESSAGE: Final = f"echo one; echo '{VALUE}' > /dev/termination-log; echo two"
FAILS: Final = "echo reading; echo 'cannot read: no such table'; exit 3"
AGAIN: Final = "echo try {{ ti.try_number }}; [ {{ ti.try_number }} -gt 1 ]"
#: How a task waits for its job, by the end of its name.
MODES: Final[dict[str, dict[str, Any]]] = {"": {}, "_deferred": {"deferrable": True}}
#: Whoever waits to be killed is first.
EARLY: Final = 10


def job(task_id: str, script: str, **arguments: Any) -> BatchOperator:  # noqa: ANN401  those of the operator
    """A task that is a job."""
    container = {"name": "main", "command": ["sh", "-c", script]}
    common: dict[str, Any] = {
        "target": "batch",
        "job_name": task_id,
        "job_definition": "jobs",
        "job_queue": "jobs",
        "eks_properties_override": {"podProperties": {"containers": [container]}},
    }
    return BatchOperator(task_id=task_id, **common | arguments)


def pod(task_id: str, script: str, **arguments: Any) -> RemotePodOperator:  # noqa: ANN401  those of the operator
    """A task that is a pod, or a job where the target makes it one."""
    return RemotePodOperator(task_id=task_id, image=IMAGE, cmds=["sh", "-c"], arguments=[script], **arguments)


with DAG(dag_id="jobs", schedule=None) as JOBS:
    for suffix, mode in MODES.items():
        message: dict[str, Any] = {"result_source": ResultSource.TERMINATION_MESSAGE, **mode}
        again: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(seconds=1), **mode}
        at_batch: dict[str, Any] = {"target": "batch", **mode}

        pod(f"pod{suffix}", FILE, do_xcom_push=True, **mode)
        job(f"job{suffix}", MESSAGE, **message)
        pod(f"translated{suffix}", MESSAGE, target="batch", do_xcom_push=True, **message)

        job(f"failing{suffix}", FAILS, **mode)
        pod(f"failing_translated{suffix}", FAILS, **at_batch)

        job(f"retried{suffix}", AGAIN, **again)
        pod(f"retried_translated{suffix}", AGAIN, target="batch", **again)
        job(
            f"attempts{suffix}",
            "echo attempt $AWS_BATCH_JOB_ATTEMPT; [ $AWS_BATCH_JOB_ATTEMPT = 2 ]",
            retry_strategy={"attempts": 2},
            **mode,
        )

        job(f"endless{suffix}", ENDLESS, priority_weight=EARLY, **mode)
        pod(f"endless_translated{suffix}", ENDLESS, priority_weight=EARLY, **at_batch)

    job(
        "array",
        "for n in 1 2 3; do echo line $n of part $AWS_BATCH_JOB_ARRAY_INDEX; done",
        array_properties={"size": 20},
        deferrable=True,
    )
    BatchOperator(task_id="everything", target="batch", **arguments())
