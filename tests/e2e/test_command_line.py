"""The command line against a real broker: what people type, and what scripts read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from e2e.broker import BROKER_USER, program
from e2e.following import follow, follow_until, has_line
from e2e.manifests import IMAGE, UNTIL_TOLD, container, numbered, pod, shell
from e2e.waiting import wait_for
from podbroker import ExecutionState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace
    from podbroker import Client

TARGET = "local"


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs commands against one broker."""

    broker: Broker

    def __call__(self, *arguments: str, stdin: str = "", within: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Runs one to its end."""
        return subprocess.run(
            [program(), *arguments],
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=within,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts one, without a terminal."""
        return subprocess.Popen(
            [program(), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Nothing but the broker's address."""
        return {"PATH": os.environ["PATH"], "PODBROKER_ADDRESS": self.broker.address}


@pytest.fixture
def broker(namespace: Namespace, brokers: Brokers) -> Broker:
    return brokers.start(namespace=namespace)


@pytest.fixture
def client(broker: Broker) -> Client:
    return broker.client()


@pytest.fixture
def run(broker: Broker) -> Iterator[Shell]:
    yield Shell(broker=broker)
    assert "panicked" not in broker.log


@pytest.mark.parametrize("code", [0, 7])
def test_run_prints_the_lines_and_exits_as_the_container_did(run: Shell, code: int) -> None:
    done = run("run", "--image", IMAGE, "--", "sh", "-c", f"echo one; echo two; exit {code}")

    assert done.stdout == "one\ntwo\n"
    assert done.returncode == code, done.stderr


def test_run_takes_a_manifest_from_standard_input(run: Shell) -> None:
    manifest = pod(container("main", "echo from main"), container("beside", "echo from beside"))

    done = run("run", "-f", "-", stdin=json.dumps(manifest))

    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert len(lines) == 2
    assert lines[0].endswith("from beside")
    assert lines[1].endswith("from main")
    assert "beside" in lines[0].removesuffix("from beside")


def test_run_quietly_prints_only_the_result(run: Shell) -> None:
    script = "echo noise; echo '{\"rows\": 3}' > /airflow/xcom/return.json"

    done = run("run", "--quiet", "--result", "--image", IMAGE, "--", "sh", "-c", script)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"rows": 3}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--run-deadline", "2s", "--image", IMAGE, "--", "sleep", "60"], 124),
        (["--start-deadline", "5s", "--image", "podbroker.test/not-there:1"], 125),
        (["--start-deadline", "60s", "--image", "not a valid image name"], 125),
        (["--target", "nowhere", "--image", IMAGE], 125),
        (["--id", "a/b", "--image", IMAGE], 125),
        (["-f", "/not/there.yaml"], 125),
        (["--no-such-flag"], 2),
    ],
)
def test_run_says_what_went_wrong_and_exits_with_the_code_for_it(run: Shell, arguments: list[str], code: int) -> None:
    done = run("run", *arguments)

    assert done.returncode == code, done.stderr
    assert done.stderr.strip()
    assert "panicked" not in done.stderr


def test_detached_lines_follow_and_cancel_belong_together(run: Shell, client: Client) -> None:
    name = run("run", "--detach", "--image", IMAGE, "--", "sh", "-c", UNTIL_TOLD).stdout.strip()
    full = "targets/{}/executions/{}".format(*name.split("/"))
    follow_until(client, full, has_line("ready"))

    assert run("logs", name).stdout == "ready\n"
    with run.start("logs", "-f", name) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "ready\n"
        cancelled = run("cancel", "--wait", "--reason", "enough", "-o", "json", name)
        assert cancelled.returncode == 0, cancelled.stderr
        assert json.loads(cancelled.stdout)["state"].endswith("CANCELLED")
        assert following.stdout.read() == "bye\n"
        assert following.wait(timeout=60) == 0


def test_an_interrupt_cancels_where_there_is_no_terminal(run: Shell, client: Client) -> None:
    with run.start("run", "--id", "interrupted", "--image", IMAGE, "--", "sh", "-c", UNTIL_TOLD) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert running.stdout.read() == "bye\n"
        assert running.wait(timeout=60) == 130
    name = f"targets/{TARGET}/executions/interrupted"
    assert client.get(name).state is ExecutionState.CANCELLED


def test_a_termination_leaves_the_execution_running(run: Shell, client: Client) -> None:
    with run.start("run", "--id", "left", "--image", IMAGE, "--", "sh", "-c", UNTIL_TOLD) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 143
    name = f"targets/{TARGET}/executions/left"
    assert client.get(name).state is ExecutionState.RUNNING
    client.cancel(name)
    assert follow(client, name).end.state is ExecutionState.CANCELLED


def test_follow_goes_on_when_the_broker_is_killed(run: Shell, client: Client, broker: Broker) -> None:
    name = client.submit(target=TARGET, execution_id="kill", pod=shell(numbered(200, pause="0.03"))).execution.name
    with run.start("logs", "-f", name) as following:
        assert following.stdout is not None
        first = [following.stdout.readline() for _ in range(50)]
        broker.kill()
        broker.start()
        rest = following.stdout.read()
        assert following.wait(timeout=60) == 0

    assert "".join(first) + rest == "".join(f"line {i}\n" for i in range(1, 201))


def test_list_get_targets_info_and_check_speak_json(run: Shell, client: Client) -> None:
    names = []
    for number in range(3):
        submission = client.submit(
            target=TARGET, execution_id=f"list-{number}", pod=shell(f"exit {number}"), labels={"n": str(number)}
        )
        names.append(submission.execution.name)
        follow(client, names[-1])

    listed = [json.loads(line) for line in run("list", "-o", "json").stdout.splitlines()]
    assert [one["name"] for one in listed] == names
    # The watch knows the end a moment before the kubelet has called the pod failed.
    wait_for("both to be failed", lambda: len(run("list", "--state", "failed", "-o", "json").stdout.splitlines()) == 2)
    assert len(run("list", "-l", "n=1", "-o", "json").stdout.splitlines()) == 1
    got = json.loads(run("get", f"{TARGET}/list-2", "-o", "json").stdout)
    assert got["outcome"]["exit_code"] == 2
    text = run("get", f"{TARGET}/list-2")
    assert "2" in text.stdout
    assert text.returncode == 0
    table = run("list").stdout.splitlines()
    assert len(table) == 4
    assert table[0].split()[0] == "NAME"
    (target,) = (json.loads(line) for line in run("targets", "-o", "json").stdout.splitlines())
    assert target["name"] == TARGET
    assert json.loads(run("info", "-o", "json").stdout)["instance"] == "e2e"
    checks = run("check", TARGET, "-o", "json")
    assert checks.returncode == 0, checks.stdout
    assert {json.loads(line)["status"] for line in checks.stdout.splitlines()} <= {"passed", "PASSED"}


def test_a_name_that_is_not_there_is_an_error_with_its_reason(run: Shell) -> None:
    for command in ("get", "logs", "cancel", "release"):
        done = run(command, f"{TARGET}/not-there")
        assert done.returncode == 1
        assert "not-there" in done.stderr
        assert done.stdout == ""


def test_a_reader_that_goes_away_ends_the_command_quietly(run: Shell, client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="pipe", pod=shell(numbered(20000))).execution.name
    follow(client, name)
    command = f"{program()} logs {TARGET}/pipe | head -n 1"

    done = subprocess.run(
        ["bash", "-c", command], env=run.environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stdout == "line 1\n"
    assert "panicked" not in done.stderr


def test_a_broker_that_is_not_there_is_said_to_be_not_there(run: Shell, broker: Broker) -> None:
    broker.kill()

    done = run("targets", within=200)

    assert done.returncode == 1
    assert broker.address in done.stderr


def test_a_broker_without_a_configuration_serves_the_current_context(
    namespace: Namespace, brokers: Brokers, tmp_path: Path
) -> None:
    kubeconfig = json.loads(brokers.site.user(BROKER_USER).read_text())
    kubeconfig["contexts"][0]["context"]["namespace"] = namespace.name
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    socket = tmp_path / "podbroker.sock"
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(tmp_path / "kubeconfig")}
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", program(), "serve", "--listen", f"unix:{socket}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            wait_for("the socket", socket.exists)
            assert socket.stat().st_mode & 0o077 == 0
            done = subprocess.run(
                [program(), "--address", f"unix:{socket}", "run", "--image", IMAGE, "--", "echo", "no configuration"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.stdout == "no configuration\n", done.stderr
            assert len(namespace.pods) == 1
        finally:
            server.terminate()
            assert server.wait(timeout=60) == 0
