"""The harness keeps its promises: pods really run, and a run leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster import cgroups, network
from cluster.description import PACKAGE_PARENT
from cluster.handle import Cluster
from cluster.run import PREFIX, Run, is_alive
from cluster.settings import DESCRIPTION, GIVEN_CLUSTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if os.environ.get(GIVEN_CLUSTER):
    pytest.skip(f"elsewhere: {GIVEN_CLUSTER} is set, so no cluster is started", allow_module_level=True)

#: Seconds, for anything that should take a few.
_LIMIT = 120.0

#: A command under test that says where its cluster is, and then stays until it is ended.
_STAY = ["sh", "-c", f"echo ${DESCRIPTION}; exec sleep 1000"]


def wait_until(condition: Callable[[], bool], what: str, limit: float = _LIMIT) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit:.0f} s: {what}"
        time.sleep(0.1)


def harness(
    *arguments: str, variables: dict[str, str] | None = None, new_session: bool = False, stderr: int | None = None
) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != DESCRIPTION}
    environment |= {"PYTHONPATH": str(PACKAGE_PARENT), **(variables or {})}
    command = [sys.executable, "-m", "cluster", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=new_session
    )


def running() -> tuple[subprocess.Popen[str], Cluster]:
    """A run whose command stays, in a process group of its own."""
    process = harness("run", "--", *_STAY, new_session=True)
    assert process.stdout is not None
    path = process.stdout.readline().strip()
    assert path, "the cluster did not start"
    return process, Cluster.load(Path(path))


def processes_of(name: str) -> list[str]:
    """Command lines of processes that name the run, or lie in its cgroups."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (entry / "cgroup").read_text()
        except OSError:
            continue
        if entry.name != str(os.getpid()) and (f"/{name}" in command or f"/{name}" in groups):
            found.append(command)
    return found


def unplugged_cables() -> list[str]:
    """The machine's ends of cables to pods whose bridge is gone. Those of other clusters are plugged in."""
    return [path.name for path in Path("/sys/class/net").glob("veth*") if not (path / "master").exists()]


def traces_of(name: str) -> dict[str, Any]:
    """Everything of a run that can be found on the machine."""
    traces = {
        "processes": processes_of(name),
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line],
        "interfaces": network.bridges(name) + unplugged_cables(),
        "network namespaces": [path.name for path in Path("/run/netns").glob("cni-*")],
        "cgroups": cgroups.existing(name),
        "folder": [str(path) for path in (Run(name).folder,) if path.exists()],
    }
    return {kind: found for kind, found in traces.items() if found}


def busybox(name: str, *command: str, **more: object) -> dict[str, Any]:
    container = {"name": "main", "image": "podbroker.test/busybox:1", "command": list(command), **more}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]},
    }


def pod(cluster: Cluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "pod", name, "-o", "json"))
    return found


def create(cluster: Cluster, manifest: dict[str, Any]) -> None:
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))


def finished(cluster: Cluster, name: str) -> dict[str, Any]:
    wait_until(lambda: pod(cluster, name)["status"]["phase"] in ("Succeeded", "Failed"), f"pod {name} ends")
    return pod(cluster, name)


def main_state(found: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = next(one for one in found["status"]["containerStatuses"] if one["name"] == "main")["state"]
    return state


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    process, started = running()
    yield started
    process.terminate()
    process.wait(_LIMIT)
    assert process.stdout is not None
    process.stdout.close()
    assert traces_of(started.facts["name"]) == {}


def test_workers_side_by_side_are_never_given_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for worker in (None, "gw0", "gw1", "gw4"):
        if worker is not None:
            monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        else:
            monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
        shares.append(set(network.ports()))
        assert network.free_port() in shares[-1]
    assert all(len(share) >= 500 for share in shares)
    assert sum(map(len, shares)) == len(set.union(*shares))


def test_a_pod_runs_and_its_log_is_read(cluster: Cluster) -> None:
    create(cluster, busybox("hello", "sh", "-c", "echo hello from $(hostname)"))
    assert finished(cluster, "hello")["status"]["phase"] == "Succeeded"
    assert cluster.kubectl("logs", "hello") == "hello from hello\n"


def test_a_container_beyond_its_memory_limit_is_killed_by_the_kernel(cluster: Cluster) -> None:
    limits = {"limits": {"memory": "32Mi"}}
    create(cluster, busybox("greedy", "sh", "-c", "tail /dev/zero", resources=limits))
    ended = main_state(finished(cluster, "greedy"))["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_sidecar_starts_first_shares_a_volume_and_does_not_keep_the_pod(cluster: Cluster) -> None:
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/airflow/xcom"}]}
    # The shell is process 1 of its container, which only a trap makes listen to SIGTERM.
    stay = "trap 'exit 0' TERM; echo ready > /airflow/xcom/side; sleep 1000 & wait"
    read = "until cat /airflow/xcom/side; do sleep 0.1; done"
    manifest = busybox("pair", "sh", "-c", read, **mount)
    sidecar = {**manifest["spec"]["containers"][0], "name": "side", "restartPolicy": "Always"}
    manifest["spec"]["initContainers"] = [{**sidecar, "command": ["sh", "-c", stay]}]
    manifest["spec"]["volumes"] = [{"name": "shared", "emptyDir": {}}]
    create(cluster, manifest)
    assert finished(cluster, "pair")["status"]["phase"] == "Succeeded"
    assert cluster.kubectl("logs", "pair", "-c", "main").endswith("ready\n")


def test_an_unknown_image_fails_to_pull_at_once(cluster: Cluster) -> None:
    manifest = busybox("unknown", "true")
    manifest["spec"]["containers"][0]["image"] = "podbroker.test/unknown:1"
    create(cluster, manifest)

    def reason() -> str:
        statuses = pod(cluster, "unknown")["status"].get("containerStatuses", [])
        return str(statuses[0]["state"].get("waiting", {}).get("reason")) if statuses else ""

    wait_until(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), "the pull fails")


def test_a_deadline_set_on_a_running_pod_ends_it(cluster: Cluster) -> None:
    create(cluster, busybox("late", "sleep", "1000"))
    wait_until(lambda: pod(cluster, "late")["status"]["phase"] == "Running", "the pod runs")
    cluster.kubectl("patch", "pod", "late", "-p", '{"spec": {"activeDeadlineSeconds": 1}}')
    assert finished(cluster, "late")["status"]["reason"] == "DeadlineExceeded"


def test_the_audit_log_counts_each_users_requests(cluster: Cluster) -> None:
    kubeconfig = cluster.user("alice")
    cluster.kubectl(f"--kubeconfig={kubeconfig}", "get", "pods")
    wait_until(lambda: len(cluster.requests("alice")) == 1, "the request is recorded")
    assert cluster.requests("alice")[0]["verb"] == "list"
    assert cluster.requests("bob") == []


def test_a_user_without_rights_is_refused(cluster: Cluster) -> None:
    kubeconfig = cluster.user("carol", groups=("nobodies",))
    who = cluster.kubectl(f"--kubeconfig={kubeconfig}", "auth", "whoami", "-o", "json")
    assert json.loads(who)["status"]["userInfo"]["username"] == "carol"
    may = subprocess.run(
        [cluster.facts["kubectl"], f"--kubeconfig={kubeconfig}", "auth", "can-i", "create", "pods"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert may.stdout == "no\n"


def test_a_component_can_be_killed_and_started_again(cluster: Cluster) -> None:
    def pid() -> int | None:
        found: int | None = Cluster.load(Run(cluster.facts["name"]).description).facts["components"]["kube-apiserver"][
            "pid"
        ]
        return found

    before = pid()
    assert before is not None
    os.kill(before, 0)
    cluster.component("kube-apiserver", "kill")
    assert pid() is None
    cluster.component("kube-apiserver", "start", "--event-ttl=2h")
    after = pid()
    assert after not in (None, before)
    assert b"--event-ttl=2h" in Path(f"/proc/{after}/cmdline").read_bytes()
    cluster.kubectl("get", "pods")


def test_the_machines_kernel_settings_stay_as_they_were() -> None:
    from cluster.node import KERNEL_SETTINGS

    def read() -> list[str]:
        return [Path(path).read_text() for path in KERNEL_SETTINGS]

    before = read()
    with harness("run", "--", "true") as process:
        assert process.wait(_LIMIT) == 0
    assert read() == before


def test_the_commands_exit_status_is_passed_on_and_nothing_is_left() -> None:
    script = f"echo ${DESCRIPTION}; (trap '' TERM HUP INT; sleep 1000) & exit 7"
    with harness("run", "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        name = Path(process.stdout.readline().strip()).parent.name
        assert process.wait(_LIMIT) == 7
    assert name.startswith(PREFIX)
    assert traces_of(name) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_run_that_is_ended_by_a_signal_leaves_nothing(number: signal.Signals) -> None:
    process, started = running()
    name = started.facts["name"]
    create(started, busybox("forever", "sleep", "1000"))
    wait_until(lambda: pod(started, "forever")["status"]["phase"] == "Running", "the pod runs")
    with process:
        process.send_signal(number)
        expected = -signal.SIGKILL if number == signal.SIGKILL else 128 + number
        assert process.wait(_LIMIT) == expected
    wait_until(lambda: traces_of(name) == {}, f"nothing is left: {traces_of(name)}")


def test_the_harness_cleans_up_when_its_keeper_is_killed() -> None:
    process, started = running()
    with process:
        os.kill(int((Path(started.facts["folder"]) / "keeper.pid").read_text()), signal.SIGKILL)
        assert process.wait(_LIMIT) == 128 + signal.SIGKILL
    assert traces_of(started.facts["name"]) == {}


def test_a_run_that_was_killed_as_a_whole_is_swept_away_by_the_next() -> None:
    process, started = running()
    name = started.facts["name"]
    create(started, busybox("forever", "sleep", "1000"))
    wait_until(lambda: pod(started, "forever")["status"]["phase"] == "Running", "the pod runs")
    with process:
        # The keeper must not get the chance to see the harness die, so both are stopped first.
        keeper = int((Path(started.facts["folder"]) / "keeper.pid").read_text())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (process.pid, keeper):
                os.kill(pid, number)
        process.wait(_LIMIT)
    wait_until(lambda: not is_alive(Run(name)), "the kernel ends every process of the cluster")
    assert "folder" in traces_of(name), "there is something to sweep"
    with harness("run", "--", "true") as following:
        assert following.wait(_LIMIT) == 0
    assert traces_of(name) == {}


def test_a_component_that_does_not_start_is_named_with_the_end_of_its_log() -> None:
    variables = {"PODBROKER_TEST_API_SERVER_ARGUMENTS": "--no-such-flag"}
    with harness("run", "--", "true", variables=variables, stderr=subprocess.PIPE) as process:
        _, told = process.communicate(timeout=_LIMIT)
        assert process.returncode == 1
    assert "kube-apiserver ended with status 1" in told
    assert "unknown flag: --no-such-flag" in told
    assert traces_of(told.split()[4].removeprefix("/tmp/")) == {}


def test_the_interrupt_key_reaches_the_command_once() -> None:
    terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    # Two interrupts would end it with 2: the second within the second that it waits for one.
    count = (
        "import signal, sys, time; seen = []; signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        "print('counting', flush=True)\n"
        "while not seen: time.sleep(0.1)\n"
        "time.sleep(1); sys.exit(len(seen))"
    )
    command = [
        sys.executable,
        "-c",
        terminal,
        sys.executable,
        "-m",
        "cluster",
        "run",
        "--",
        sys.executable,
        "-c",
        count,
    ]
    with subprocess.Popen(
        command, cwd=PACKAGE_PARENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        wait_until(lambda: "counting" in process.stdout.readline(), "the command has started")  # type: ignore[union-attr]
        process.stdin.write("\x03")
        process.stdin.flush()
        assert process.wait(_LIMIT) == 1


def test_two_runs_at_the_same_time_do_not_meet() -> None:
    runs = [running() for _ in range(2)]
    for _, started in runs:
        create(started, busybox("same-name", "sh", "-c", f"echo {started.facts['name']}"))
    for _, started in runs:
        finished(started, "same-name")
        assert started.kubectl("logs", "same-name").strip() == started.facts["name"]
    assert len({started.facts["pod_subnet"] for _, started in runs}) == len(runs)
    for process, started in runs:
        with process:
            process.terminate()
            process.wait(_LIMIT)
        wait_until(lambda name=started.facts["name"]: not Run(name).folder.exists(), "the run is gone")  # type: ignore[misc]


def test_a_named_cluster_of_the_user_is_passed_on_and_nothing_is_started(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "mine"
    kubeconfig.write_text("{}")
    environment = {
        **os.environ,
        GIVEN_CLUSTER: str(kubeconfig),
        "KUBECONFIG": "/production",
        "PODBROKER_CACHE": str(tmp_path),
    }
    command = [sys.executable, "-m", "cluster", "run", "--", "sh", "-c", f'echo "$KUBECONFIG"; cat "${DESCRIPTION}"']
    done = subprocess.run(command, cwd=PACKAGE_PARENT, env=environment, capture_output=True, text=True, check=True)
    ambient, _, described = done.stdout.partition("\n")
    facts = json.loads(described)
    assert ambient == ""
    assert (facts["started"], facts["kubeconfig"]) == (False, str(kubeconfig))
