"""DAGs whose task `pod` starts in the triggerer, or asks for it in vain."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset

from e2e.manifests import IMAGE, UNTIL_TOLD, numbered
from podbroker.airflow.operator import RemotePodOperator


def one(dag_id: str, script: str, **arguments: Any) -> DAG:  # noqa: ANN401  those of the operator
    """A DAG whose task `pod` runs a script."""
    common: dict[str, Any] = {
        "image": IMAGE,
        "cmds": ["sh", "-c"],
        "arguments": [script],
        "termination_grace_period": 5,
    }
    with DAG(dag_id=dag_id, schedule=None, max_active_runs=4) as dag:
        RemotePodOperator(task_id="pod", start_from_trigger=True, **common | arguments)
    return dag


STARTED = one("started", "echo one; echo {{ dag_run.conf.word }} $AT; echo three", env_vars={"AT": "{{ run_id }}"})
VALUE = one(
    "started-value",
    'echo \'{"rows": 3, "run": "{{ run_id }}"}\' > /airflow/xcom/return.json',
    do_xcom_push=True,
)
FAIL = one(
    "started-fail",
    "echo reading {{ ti.try_number }}; [ {{ ti.try_number }} -gt 1 ] || exit 3",
    retries=1,
    retry_delay=timedelta(seconds=1),
)
ENDLESS = one("started-endless", UNTIL_TOLD)
SLOW = one("started-slow", numbered(400, pause="0.3"))
OUTLET = one("started-outlet", "echo one", outlets=[Asset(name="started", uri="x-test://started")])
SECRET = one("started-in-vain", "echo one", env_vars={"KEY": "a value"})
LATE = one(
    "started-late",
    UNTIL_TOLD,
    startup_timeout_seconds=120,
    active_deadline_seconds=5,
    execution_timeout=timedelta(hours=1),
)
with DAG(dag_id="started-mapped", schedule=None) as MAPPED:
    RemotePodOperator.partial(task_id="pod", image=IMAGE, cmds=["sh", "-c"], start_from_trigger=True).expand(
        arguments=[["echo line of 0; sleep 15"]]
    )
