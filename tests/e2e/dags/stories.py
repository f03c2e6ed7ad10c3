"""DAGs of one task each, for the end-to-end tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from e2e.manifests import IMAGE, UNTIL_TOLD, numbered
from podbroker.airflow.operator import RemotePodOperator


def one(dag_id: str, script: str, **arguments: Any) -> DAG:  # noqa: ANN401  those of the operator
    """A DAG whose task `pod` runs a script."""
    with DAG(dag_id=dag_id, schedule=None, max_active_runs=4) as dag:
        RemotePodOperator(
            task_id="pod",
            name=dag_id,
            image=IMAGE,
            cmds=["sh", "-c"],
            arguments=[script],
            termination_grace_period=5,
            **arguments,
        )
    return dag


SUCCEED = one(
    "succeed",
    'echo one; echo two; echo \'{"rows": 3, "run": "{{ run_id }}"}\' > /airflow/xcom/return.json; echo three',
    do_xcom_push=True,
)
FAIL = one("fail", "echo reading; echo 'cannot read: no such table'; exit 3")
SLOW = one("slow", numbered(400, pause="0.04"))
ENDLESS = one("endless", UNTIL_TOLD)
LATE = one("late", UNTIL_TOLD, execution_timeout=timedelta(seconds=10))
RETRIED = one(
    "retried",
    "echo try {{ ti.try_number }}; [ {{ ti.try_number }} -gt 1 ]",
    retries=1,
    retry_delay=timedelta(seconds=1),
)
