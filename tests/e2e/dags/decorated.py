"""DAGs of the task decorators, for the end-to-end tests."""

from __future__ import annotations

import sys

from airflow.sdk import DAG, task
from kubernetes.client import models as k8s

from e2e.manifests import IMAGE

# The image of the tests is a busybox. The node is this machine, so a pod can have its interpreter, read-only.
FOLDERS = (sys.base_prefix, "/lib", "/lib64", "/usr/lib")
VOLUMES = [
    k8s.V1Volume(name=f"machine-{at}", host_path=k8s.V1HostPathVolumeSource(path=path))
    for at, path in enumerate(FOLDERS)
]
MOUNTS = [k8s.V1VolumeMount(name=f"machine-{at}", mount_path=path, read_only=True) for at, path in enumerate(FOLDERS)]

with DAG("decorated", schedule=None):

    @task.remote_pod(
        image=IMAGE,
        python=f"{sys.base_prefix}/bin/python3",
        volumes=VOLUMES,
        volume_mounts=MOUNTS,
        do_xcom_push=True,
    )
    def count(words: list[str], *, label: str) -> dict[str, int]:
        """Runs in the pod."""
        import platform

        print(label, "on", platform.system())
        return {word: len(word) for word in words}

    @task.remote_pod_cmd(image=IMAGE, do_xcom_push=True)
    def report(counted: dict[str, int], run_id: str | None = None) -> list[str]:
        """Runs in the worker, and says what runs in the pod."""
        said = " ".join(f"{word}={length}" for word, length in counted.items())
        return ["sh", "-c", f"echo '{said}'; echo '\"{{{{ ti.task_id }}}} of {run_id}\"' > /airflow/xcom/return.json"]

    report(count(["one", "three"], label="käse"))  # type: ignore[arg-type]  # Airflow puts the value there
