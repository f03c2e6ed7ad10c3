"""DAGs of the task decorators, for the end-to-end tests."""

from __future__ import annotations

from airflow.sdk import DAG, task

from e2e.interpreter import MOUNTS, PYTHON, VOLUMES
from e2e.manifests import IMAGE

with DAG("decorated", schedule=None):

    @task.remote_pod(
        image=IMAGE,
        python=PYTHON,
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
