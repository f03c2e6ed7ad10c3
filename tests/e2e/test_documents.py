"""Every example in the README and the pages, executed as it stands: a page that is wrong fails here.

Shell blocks run in order in one shell per page, against a broker whose target has the name that `podbroker serve` gives
its only one. Changed are the image, where the cluster is ours and has no registry, and the port, which must be free.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from e2e.broker import program
from e2e.manifests import IMAGE
from e2e.wire import Wire

if TYPE_CHECKING:
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace, Site

ROOT: Final = Path(__file__).resolve().parents[2]
#: Pages whose examples need no broker; python-bindings/tests/migrate executes them.
ELSEWHERE: Final = {"migration.md"}
PAGES: Final = (
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in ELSEWHERE),
)
#: Pages that are tables of facts; tests beside what they tell of compare them with it.
FACTS: Final = {"compatibility.md", "faults.md", "kills.md", "parameters.md", "parity.md", "performance.md", "rbac.md"}
#: The target that the pages name.
TARGET: Final = "default"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def script(page: Path, broker: Broker) -> str:
    """The page's shell blocks as one script that stops at the first failure."""
    lines = "\n".join(blocks(page, "sh"))
    # The broker runs already; `grpcurl` is judged by a test of its own, and its execution is there for what follows.
    lines = lines.replace("podbroker serve &\n", "")
    lines = re.sub(r"^grpcurl .*?/SubmitExecution$", "", lines, flags=re.MULTILINE | re.DOTALL)
    return f"set -euo pipefail\n{lines.replace('busybox:1.37', IMAGE).replace('50051', str(broker.port))}"


@pytest.fixture
def broker(page: Path, namespace: Namespace, brokers: Brokers, tmp_path: Path) -> Broker:
    """A broker as the pages have it."""
    if page.name == "jobs.md":
        broker = brokers.prepare(namespace=namespace, target="jobs", instance="default")
        (target,) = broker.config["targets"]
        target["executions"] = "jobs"
        return broker.start()
    archive = {"archive": {"url": f"file://{tmp_path}/archive"}} if page.name == "archive.md" else {}
    return brokers.start(namespace=namespace, target=TARGET, instance="default", **archive)


def first_call(broker: Broker) -> None:
    """Makes the README's gRPC call."""
    call = next(block for block in blocks(ROOT / "README.md", "sh") if block.startswith("grpcurl"))
    words = shlex.split(call.split("\n\n")[0].replace("busybox:1.37", IMAGE))
    assert words[:3] == ["grpcurl", "-plaintext", "-d"]
    assert words[5].startswith("podbroker.v1.BrokerService/")
    with Wire(broker.port) as wire:
        wire.call(words[5].partition("/")[2], yaml.safe_load(words[3]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_as_they_stand(
    page: Path, broker: Broker, namespace: Namespace, site: Site, tmp_path: Path
) -> None:
    if not blocks(page, "sh"):
        assert page.name in FACTS, "a page without an example says nothing that can be tried"
        return
    if page.name == "README.md":
        first_call(broker)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "podbroker").symlink_to(program())
    kubectl = shlex.join([*site.cluster.kubectl_command(), "--namespace", namespace.name])
    (tools / "kubectl").write_text(f'#!/bin/sh\nexec {kubectl} "$@"\n')
    (tools / "kubectl").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", script(page, broker)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PODBROKER_ADDRESS": broker.address},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    if page.name == "README.md":
        assert "exit code 3" in done.stdout
        assert "hello over gRPC" in done.stdout
    if page.name == "jobs.md":
        assert all(f"hello from {index}" in done.stdout for index in range(2))
    if page.name == "executions.md":
        assert '{"rows": 42}' in done.stdout


def test_the_readmes_dag_is_a_dag(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    (tmp_path / "hello.py").write_text(code)
    # A DAG that is made in a `with` needs no name of its own, so it is looked for among all objects.
    look = (
        "import gc, runpy, sys; from airflow.sdk import DAG; kept = runpy.run_path(sys.argv[1]); "
        "print('tasks:', *[task for it in gc.get_objects() if isinstance(it, DAG) for task in it.task_ids])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, tmp_path / "hello.py"],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "tasks: hello" in done.stdout, done.stderr
