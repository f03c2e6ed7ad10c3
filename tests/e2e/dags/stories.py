"""DAGs of one task each, for the end-to-end tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG
from kubernetes.client import models as k8s

from e2e.formatting import stumble
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
SLOW_RETRIED = one("slow-retried", numbered(400, pause="0.04"), retries=1, retry_delay=timedelta(seconds=1))
ENDLESS = one("endless", UNTIL_TOLD)
LATE = one("late", UNTIL_TOLD, execution_timeout=timedelta(seconds=10))
RETRIED = one(
    "retried",
    "echo try {{ ti.try_number }}; [ {{ ti.try_number }} -gt 1 ]",
    retries=1,
    retry_delay=timedelta(seconds=1),
)

#: No node has it, so the pod stays pending.
NOWHERE = {"podbroker.test/nowhere": "true"}
INIT = k8s.V1Container(name="setup", image=IMAGE, command=["sh", "-c", "echo migrating; echo migrated"])
DEFERRED = one(
    "deferred",
    'echo one; echo two; echo \'{"rows": 3, "run": "{{ run_id }}"}\' > /airflow/xcom/return.json; echo three',
    do_xcom_push=True,
    deferrable=True,
    init_containers=[INIT],
    init_container_logs=True,
)
DEFERRED_FAIL = one("deferred-fail", "echo reading; echo 'cannot read: no such table'; exit 3", deferrable=True)
DEFERRED_SKIP = one("deferred-skip", "exit 99", deferrable=True, skip_on_exit_code=99)
DEFERRED_SLOW = one("deferred-slow", numbered(400, pause="0.05"), deferrable=True)
DEFERRED_ENDLESS = one("deferred-endless", UNTIL_TOLD, deferrable=True)
DEFERRED_LATE = one("deferred-late", UNTIL_TOLD, deferrable=True, execution_timeout=timedelta(seconds=15))
DEFERRED_PENDING = one(
    "deferred-pending", UNTIL_TOLD, deferrable=True, node_selector=NOWHERE, startup_timeout_seconds=600
)
DEFERRED_PENDING_LATE = one(
    "deferred-pending-late",
    UNTIL_TOLD,
    deferrable=True,
    node_selector=NOWHERE,
    startup_timeout_seconds=600,
    execution_timeout=timedelta(seconds=15),
)
DEFERRED_RETRIED = one(
    "deferred-retried",
    "echo try {{ ti.try_number }}; [ {{ ti.try_number }} -gt 1 ]",
    retries=1,
    retry_delay=timedelta(seconds=1),
    deferrable=True,
)
DEFERRED_STUMBLE = one("deferred-stumble", numbered(100), deferrable=True, log_formatter=stumble)
with DAG(dag_id="together", schedule=None) as TOGETHER:
    common: dict[str, Any] = {"image": IMAGE, "cmds": ["sh", "-c"], "do_xcom_push": True}
    synchronous = RemotePodOperator(task_id="synchronous", arguments=["echo 1 > /airflow/xcom/return.json"], **common)
    deferred = RemotePodOperator(
        task_id="deferred", deferrable=True, arguments=["echo 2 > /airflow/xcom/return.json"], **common
    )
    # They outlast the workers that start them all at once on two cores; see trigger.HOLD_SECONDS.
    mapped = RemotePodOperator.partial(task_id="mapped", deferrable=True, **common).expand(
        arguments=[[f"echo line of {i}; sleep 20; echo {i} > /airflow/xcom/return.json"] for i in range(4)]
    )
    [synchronous, deferred] >> mapped
