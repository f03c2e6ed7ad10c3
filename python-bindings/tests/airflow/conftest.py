"""Sets up Airflow without a database, and the fixtures that the tests of the provider share."""

# ruff: noqa: E402 -- the environment and the path have to be ready before Airflow and the provider are imported

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import tempfile
import types
from pathlib import Path

# Before Airflow is imported anywhere: it writes into its home.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="podbroker-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

if importlib.util.find_spec("podbroker") is None:
    above = Path(__file__).resolve().parents
    # In a source distribution it lies beside the folder of the tests.
    sys.path.insert(0, str(next(each / "python" for each in above[2:] if (each / "python").is_dir())))
package = Path(next(iter(importlib.util.find_spec("podbroker").submodule_search_locations)))
if not list(package.glob("_core*.so")):
    # These tests speak to a scripted client. Where the wheel is not built, its native module is never called.
    sys.modules["podbroker._core"] = types.ModuleType("podbroker._core")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest
from batches import NAMES, job_attempt, job_target
from scripted import FakeClient, RecordingLog, make_context
from triggers import FakeTriggerer

from podbroker.airflow._compat import KubernetesPodOperator
from podbroker.airflow.batch import BatchOperator
from podbroker.airflow.hook import PodbrokerHook
from podbroker.airflow.operator import RemotePodOperator


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The broker's client, scripted, in the place of the hook's."""
    fake = FakeClient()
    monkeypatch.setattr(PodbrokerHook, "conn", fake)
    monkeypatch.setattr("podbroker.airflow.session.PAUSE_SECONDS", 0.0)
    return fake


@pytest.fixture
def context() -> dict[str, object]:
    """What Airflow gives to ``execute``."""
    return make_context()


@pytest.fixture
def log() -> RecordingLog:
    """What the task wrote into its log."""
    return RecordingLog()


@pytest.fixture
def make(client: FakeClient, log: RecordingLog, monkeypatch: pytest.MonkeyPatch):  # noqa: ARG001
    """Make an operator over the scripted client."""
    monkeypatch.setattr(RemotePodOperator, "log", log)

    def build(**kwargs: object) -> RemotePodOperator:
        arguments = _for_installed_provider(kwargs)
        arguments = {"task_id": "task", "target": "somewhere", "image": "busybox:1", "cmds": ["true"]} | arguments
        return RemotePodOperator(**arguments)

    return build


UPSTREAM = inspect.signature(KubernetesPodOperator.__init__).parameters
NEWER = frozenset(
    {
        "container_name_log_prefix_enabled",
        "log_events_on_startup",
        "log_formatter",
        "on_kill_action",
        "trigger_kwargs",
        "xcom_sidecar_container_security_context",
    }
)
"""Arguments that older providers do not have, and that nothing takes the place of there."""


def _for_installed_provider(arguments: dict[str, object]) -> dict[str, object]:
    """Skip a test whose argument the installed provider does not have; `durable` had another name."""
    for name in NEWER.intersection(arguments):
        if name not in UPSTREAM:
            pytest.skip(f"the installed provider of Kubernetes has no {name}")
    if "durable" in arguments and "durable" not in UPSTREAM:
        arguments = {("reattach_on_restart" if name == "durable" else name): each for name, each in arguments.items()}
    return arguments


@pytest.fixture
def triggerer(client: FakeClient, log: RecordingLog, monkeypatch: pytest.MonkeyPatch) -> FakeTriggerer:
    """Runs triggers over the scripted client."""
    return FakeTriggerer(client, log, monkeypatch)


@pytest.fixture
def batch(client: FakeClient, log: RecordingLog, monkeypatch: pytest.MonkeyPatch):
    """Make an operator of Batch over the scripted client, whose target is in AWS and whose submits make a job."""
    monkeypatch.setattr(BatchOperator, "log", log)
    client.places = (job_target(),)
    client.made = {"attempts": (job_attempt(),)}

    def build(**kwargs: object) -> BatchOperator:
        arguments = {"task_id": "task", "target": "somewhere", **NAMES}
        return BatchOperator(**arguments | kwargs)

    return build
