"""A user's callback that holds a task where it has come back from the triggerer, until the row goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback

#: What a row puts into its run's folder to let the task go on, and what the task puts there when it waits.
ON = "on"
BACK = "back"


class Hold(KubernetesPodOperatorCallback):
    """Waits once per run."""

    @staticmethod
    def on_operator_resuming(*, context: Any, **_: Any) -> None:  # noqa: ANN401  those of the provider
        """Says that the task is back, and waits."""
        folder = Path(os.environ["PODBROKER_KILLS_SIGNALS"], context["run_id"])
        (folder / BACK).touch()
        while not (folder / ON).exists():
            time.sleep(0.1)
