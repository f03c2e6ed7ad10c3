"""Sets up Airflow without a database, and the fixtures that the tests of the provider share."""

# ruff: noqa: E402 -- the environment and the path have to be ready before Airflow and the provider are imported

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import types
from pathlib import Path

# Before Airflow is imported anywhere: it writes into its home.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="podbroker-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

if importlib.util.find_spec("podbroker") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
package = Path(next(iter(importlib.util.find_spec("podbroker").submodule_search_locations)))
if not list(package.glob("_core*.so")):
    # These tests speak to a scripted client. Where the wheel is not built, its native module is never called.
    sys.modules["podbroker._core"] = types.ModuleType("podbroker._core")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest
from scripted import FakeClient, RecordingLog, make_context
from triggers import FakeTriggerer

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
        arguments = {"task_id": "task", "target": "somewhere", "image": "busybox:1", "cmds": ["true"]} | kwargs
        return RemotePodOperator(**arguments)

    return build


@pytest.fixture
def triggerer(client: FakeClient, log: RecordingLog, monkeypatch: pytest.MonkeyPatch) -> FakeTriggerer:
    """Runs triggers over the scripted client."""
    return FakeTriggerer(client, log, monkeypatch)
