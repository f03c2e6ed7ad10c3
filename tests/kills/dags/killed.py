"""DAGs of one task each, for the kill matrix: per mode, number of retries and moment.

A pod prints numbered lines until its run's folder holds `go`, and at least twenty of them, so that what is lost or
doubled shows. It says its number last.
"""

from __future__ import annotations

import os
from datetime import timedelta
from itertools import product
from typing import Any

from airflow.sdk import DAG
from kills.cell import OPENS_LABEL, Mode, Moment, dag_id
from kills.holding import Hold
from kills.rows import RETRIES
from kubernetes.client import models as k8s

from e2e.manifests import IMAGE
from podbroker.airflow.operator import RemotePodOperator

#: Keeps a pod pending until another one has a label with the name of its run.
OPENED = {"labelSelector": {"matchLabels": {OPENS_LABEL: "{{ run_id }}"}}, "topologyKey": "kubernetes.io/hostname"}
NOWHERE = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [OPENED]}}
MOUNT = k8s.V1VolumeMount(name="signals", mount_path="/signals", read_only=True)
SIGNALS = k8s.V1Volume(name="signals", host_path=k8s.V1HostPathVolumeSource(path=os.environ["PODBROKER_KILLS_SIGNALS"]))
BASE = (
    "trap 'echo told; exit 0' TERM; i=0; "
    "until [ -e /signals/{{ run_id }}/go ] && [ $i -ge 20 ]; do i=$((i+1)); echo line $i; sleep 0.2; done; "
    "echo last $i"
)
#: Keeps the stream open after the base container's end.
BESIDE = {
    "name": "beside",
    "image": IMAGE,
    "command": [
        "sh",
        "-c",
        "trap 'exit 0' TERM; echo beside; until [ -e /signals/{{ run_id }}/end ]; do sleep 0.2; done",
    ],
    "volumeMounts": [{"name": "signals", "mountPath": "/signals", "readOnly": True}],
}


def spec(moment: Moment) -> dict[str, Any]:
    """What the moment needs of the pod besides the base container."""
    containers: list[dict[str, Any]] = [{"name": "base"}]
    more: dict[str, Any] = {}
    if moment is Moment.PENDING:
        more["affinity"] = NOWHERE
    if moment is Moment.ENDING:
        containers.append(BESIDE)
    return {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": containers, **more}}


for mode, retries, moment in product(Mode, RETRIES, Moment):
    if moment is Moment.BACK and mode is Mode.SYNC:
        continue
    name = dag_id(mode, retries=retries, moment=moment)
    with DAG(dag_id=name, schedule=None, max_active_runs=100, max_active_tasks=100):
        RemotePodOperator(
            task_id="pod",
            podbroker_conn_id="{{ dag_run.conf['connection'] }}",
            name=name,
            image=IMAGE,
            cmds=["sh", "-c"],
            arguments=[BASE],
            volumes=[SIGNALS],
            volume_mounts=[MOUNT],
            pod_template_dict=spec(moment),
            container_logs=True,
            callbacks=[Hold] if moment is Moment.BACK else None,
            termination_grace_period=5,
            # Longer than a row lasts.
            startup_timeout_seconds=1200,
            deferrable=mode is Mode.DEFERRED,
            retries=retries,
            retry_delay=timedelta(seconds=1),
        )
