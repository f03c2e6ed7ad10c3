"""The same pod by both operators; its script is given with the run."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG

from e2e.manifests import IMAGE
from podbroker.airflow import RemotePodOperator

ARGUMENTS: dict[str, Any] = {
    "task_id": "pod",
    "image": IMAGE,
    "cmds": ["sh", "-c"],
    "arguments": ["{{ params.script }}"],
}

with DAG(dag_id="ours", schedule=None, params={"script": "true"}):
    RemotePodOperator(name="ours", **ARGUMENTS)

with DAG(dag_id="peer", schedule=None, params={"script": "true"}):
    KubernetesPodOperator(
        name="peer",
        namespace=os.environ["BENCH_NAMESPACE"],
        config_file=os.environ["BENCH_KUBECONFIG"],
        in_cluster=False,
        **ARGUMENTS,
    )
