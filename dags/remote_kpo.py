"""The smallest DAG that runs a pod in a remote cluster through the broker.

It is one import away from the same DAG with ``KubernetesPodOperator``: the operator takes the same arguments, and a
``target`` in the place of a kubeconfig. The pod prints some lines, which appear in the task log as they are written,
and hands back a value, which becomes the task's XCom.

It needs a connection ``podbroker_default`` to the broker; the quickest way is the environment:

    export AIRFLOW_CONN_PODBROKER_DEFAULT='{"conn_type": "podbroker", "host": "127.0.0.1", "port": 50051,
        "extra": {"target": "default"}}'
    airflow dags test remote_kpo

Image and target are parameters of the run; without them the Airflow variable ``remote_kpo_image`` and the target of
the connection are taken:

    airflow dags test remote_kpo --conf '{"image": "podbroker.test/busybox:1", "target": "remote"}'
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from podbroker.airflow import RemotePodOperator

SCRIPT = """
for n in 1 2 3; do echo "line $n of 3 from $(hostname)"; done
echo '{"greeting": "hello from a remote pod", "lines": 3}' > /airflow/xcom/return.json
"""

with DAG(
    dag_id="remote_kpo",
    description="Runs one pod in a remote cluster",
    schedule=None,
    catchup=False,
    tags=["podbroker", "example"],
    params={
        "image": Param("", type="string", description="Any image with a shell; empty: the variable remote_kpo_image"),
        "target": Param("", type="string", description="A target of the broker; empty: the connection's default"),
    },
):
    RemotePodOperator(
        task_id="remote_pod",
        name="remote-kpo",
        target="{{ params.target }}",
        image="{{ params.image or var.value.get('remote_kpo_image', 'busybox:1.37') }}",
        cmds=["sh", "-c"],
        arguments=[SCRIPT],
        container_resources={"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        do_xcom_push=True,
        on_finish_action="delete_pod",
    )
