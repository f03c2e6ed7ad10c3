"""No key, not even its id, no session token and no EKS token of a run is anywhere but in the broker's memory.

Searched are all that the run has written and shown: the broker's log at TRACE, what callers and checks are told, the
pods, Airflow's folder with its task logs and its database, and the arguments and environments of all processes of the
machine while it ran.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import podbroker
from cluster.identity import REGION
from e2e.airflow import Airflow
from e2e.aws import NAMESPACE, TARGET
from e2e.following import follow
from e2e.manifests import IMAGE, shell
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from e2e.aws import Aws
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace

#: The namespace and its role are there for each.
pytestmark = pytest.mark.usefixtures("remote")

ROOT: Final = Path(__file__).resolve().parents[2]
#: Seconds between two looks at the processes.
INTERVAL: Final = 1.0
#: A part is as bad as the whole.
PART: Final = 24
#: What every EKS token begins with, as text and within a URL.
MARKS: Final = ("k8s-aws-v1.", "X-Amz-Signature=", "X-Amz-Signature%3D")


class Processes:
    """Arguments and environments of all processes of the machine, as long as it looks."""

    def __init__(self) -> None:
        self.arguments: set[bytes] = set()
        self.environments: dict[int, set[bytes]] = {}
        self._done = threading.Event()
        self._looking = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._looking.join()

    def _look(self) -> None:
        while True:
            for folder in Path("/proc").glob("[0-9]*"):
                # One may end, and a part of the kernel has neither.
                with contextlib.suppress(OSError):
                    self.arguments.add((folder / "cmdline").read_bytes())
                    self.environments.setdefault(int(folder.name), set()).add((folder / "environ").read_bytes())
            if self._done.wait(INTERVAL):
                return

    def environment_of(self, pid: int) -> bytes:
        """What one process was given."""
        return b"".join(self.environments.get(pid, ()))

    def all_environments(self, *, but: int | None = None) -> bytes:
        """What all processes were given, but one."""
        return b"\0".join(one for pid, found in self.environments.items() if pid != but for one in found)


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file under a folder; databases are files too."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), path.read_bytes()


def assert_none_is_in(secrets: list[str], places: dict[str, bytes]) -> None:
    """Fails with the place, and not with the secret."""
    wanted = [secret[:PART].encode() for secret in secrets]
    # The way a header or a URL would bear it.
    wanted += [base64.b64encode(secret.encode())[:PART] for secret in secrets]
    wanted += [mark.encode() for mark in MARKS]
    found = sorted({place for place, content in places.items() for one in wanted if one in content})
    assert not found, "a secret is told there"


def refused(aws: Aws, broker: Broker) -> str:
    """What a caller is told when the role does not let the broker in any more."""
    aws.role["trust"]["principals"] = []
    aws.apply()
    aws.expire()
    client, tries = broker.client(retry_for=0.0), itertools.count()

    def refusal() -> str:
        try:
            client.submit(target=TARGET, execution_id=f"refused-{next(tries)}", pod=shell("true"))
        except podbroker.PodbrokerError as error:
            return f"{error!r} {error} {error.__cause__!r}"
        return ""

    # The API server itself takes a token that was good for good for 10 seconds.
    return wait_for("a refusal", refusal, within=120)


# A whole Airflow starts and runs two DAGs, on a machine that may be busy.
@pytest.mark.timeout(900)
def test_no_secret_is_told(aws: Aws, brokers: Brokers, remote: Namespace, tmp_path: Path) -> None:
    broker = brokers.prepare(namespace=NAMESPACE, targets=[aws.target()], aws={"credentials": "irsa"})
    broker.environment |= aws.environment()
    broker.arguments = ("--log-level", "trace")
    broker.start()
    client = broker.client()
    (tmp_path / "dags").mkdir()
    (tmp_path / "airflow").mkdir()
    for dag in ("test_eks_connectivity", "remote_kpo"):
        shutil.copy(ROOT / f"dags/{dag}.py", tmp_path / "dags")
    airflow = Airflow(folder=tmp_path / "airflow", dags=tmp_path / "dags", broker=broker.address, target=TARGET)
    told = []

    with Processes() as processes, airflow:
        for dag in ("test_eks_connectivity", "remote_kpo"):
            run = airflow.trigger(dag, conf={"image": IMAGE})
            assert run.finish(within=300) == "success", broker.log[-4000:]
        submission = client.submit(target=TARGET, execution_id="quiet", pod=shell("echo done; env"))
        told.append(repr(follow(client, submission.execution.name).events))
        told.append(repr(list(client.check(TARGET))))
        pods = repr(remote.pods)
        told.append(refused(aws, broker))
        told.append(repr(list(client.check(TARGET))))

    secrets = aws.secrets()
    assert len(secrets) >= 5
    assert "assumed the role" in broker.log
    places = {
        "the broker's log": broker.log.encode(),
        "what callers are told": "\n".join(told).encode(),
        "pods": pods.encode(),
        "arguments of processes": b"\0".join(processes.arguments),
        "environments of processes": processes.all_environments(),
        **{f"airflow/{name}": content for name, content in files(tmp_path / "airflow")},
    }
    assert "airflow/airflow.db" in places
    assert any(b"line 1 of 3" in content for name, content in places.items() if "/logs/" in name)
    assert processes.environment_of(broker.pid)
    assert_none_is_in(secrets, places)


def test_what_the_broker_is_given_in_its_environment_goes_no_further(aws: Aws, brokers: Brokers) -> None:
    given = aws.workload_session()
    broker = brokers.prepare(namespace=NAMESPACE, targets=[aws.target()], aws={"credentials": "env"})
    broker.environment |= {
        **aws.endpoints,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }
    broker.arguments = ("--log-level", "trace")
    broker.start()
    client = broker.client()
    with Processes() as processes:
        name = client.submit(target=TARGET, execution_id="given", pod=shell("echo done; env")).execution.name
        told = repr(follow(client, name).events) + repr(list(client.check(TARGET)))

    own = processes.environment_of(broker.pid)
    assert given["SecretAccessKey"].encode() in own
    base = {given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]}
    derived = [secret for secret in aws.secrets() if secret not in base]
    assert len(derived) >= 4
    # Who chooses this mode has put the base credentials there; what is made of them is nowhere.
    assert_none_is_in(derived, {"the broker's environment": own})
    assert_none_is_in(
        aws.secrets(),
        {
            "the broker's log": broker.log.encode(),
            "what callers are told": told.encode(),
            "arguments of processes": b"\0".join(processes.arguments),
            "environments of other processes": processes.all_environments(but=broker.pid),
        },
    )
