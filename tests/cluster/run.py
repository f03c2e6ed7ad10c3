"""The names of one run: its folder, what lies where in it, and what was chosen for it.

Everything a run leaves on the machine outside its own namespaces bears its name: the folder ``/tmp/NAME``, the bridge
``NAME``, the cgroups ``/NAME``. That makes the leftovers of a killed run recognizable without any record.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .errors import ClusterError
from .settings import Settings

#: The folders in it are made with mode 0700 and a name that must be new.
#: Not TMPDIR, which may be long: the path of a Unix socket in the folder must stay under 108 bytes (unix(7)).
BASE = Path("/tmp")

PREFIX = "pbc-"

#: Linux takes 15 bytes for the name of the bridge (IFNAMSIZ), and the prefix has 4.
_NAME = re.compile(r"[a-z0-9_]{1,10}")

NODE = "node1"


@dataclass(frozen=True)
class Run:
    """One cluster, running or left behind."""

    name: str

    @classmethod
    def named(cls, name: str) -> Run:
        """A run with a name that a person chose."""
        if not _NAME.fullmatch(name):
            raise ClusterError(f"{name!r} cannot name a cluster: 1 to 10 lower-case letters, digits and _")
        return cls(PREFIX + name)

    @classmethod
    def all(cls) -> list[Run]:
        """Every run whose folder exists and is root's: somebody else's folder in /tmp is none of ours."""
        folders = [path for path in BASE.glob(f"{PREFIX}*") if path.is_dir() and path.lstat().st_uid == 0]
        return [cls(path.name) for path in sorted(folders)]

    @property
    def folder(self) -> Path:
        """Where everything of the run lies."""
        return BASE / self.name

    @property
    def bridge(self) -> str:
        """The network interface that the pods are plugged into."""
        return self.name

    @property
    def cgroup(self) -> str:
        """The cgroup of the pods, below the root of each hierarchy."""
        return self.name

    @property
    def lock(self) -> Path:
        """Locked as long as the run is alive; see `Ownership`."""
        return self.folder / "lock"

    @property
    def plan(self) -> Path:
        """The `Plan`, as JSON."""
        return self.folder / "plan.json"

    @property
    def description(self) -> Path:
        """What tests read; its existence says that the cluster has started."""
        return self.folder / "cluster.json"

    @property
    def control(self) -> Path:
        """The socket that starts and stops single components."""
        return self.folder / "control.sock"

    @property
    def logs(self) -> Path:
        """One log per component, and the audit log."""
        return self.folder / "log"

    @property
    def pki(self) -> Path:
        """Certificates and kubeconfigs."""
        return self.folder / "pki"

    @property
    def programs(self) -> Path:
        """Small scripts: kubectl and ctr for this cluster."""
        return self.folder / "bin"


@dataclass(frozen=True)
class Plan:
    """What was chosen for a run before it started."""

    #: The binary with all of Kubernetes.
    program: str
    #: The folder with the container network plugins.
    plugins: str
    api_port: int
    kubelet_port: int
    authenticator_port: int
    #: Of the doubles of AWS: sts, eks, s3, batch, proxy, control.
    aws_ports: dict[str, int]
    #: Runs the doubles of AWS; without, there are none.
    python: str | None
    #: First three numbers of the pods' /24 network; its .1 is the machine itself, on the bridge.
    network: str
    settings: Settings = field(default_factory=Settings)

    @property
    def server(self) -> str:
        """Where the API server is reached."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def gateway(self) -> str:
        """The machine's address on the bridge: the node's address, and where pods reach servers of the tests."""
        return f"{self.network}.1"

    @property
    def pod_subnet(self) -> str:
        """The addresses of the pods."""
        return f"{self.network}.0/24"

    def save(self, run: Run) -> None:
        """Writes the plan into the run's folder."""
        run.plan.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, run: Run) -> Plan:
        """Reads the plan that `save` wrote."""
        values = json.loads(run.plan.read_text())
        settings = values.pop("settings")
        settings["api_server_arguments"] = tuple(settings["api_server_arguments"])
        return cls(**values, settings=Settings(**settings))


@dataclass(frozen=True)
class Ownership:
    """The lock that says a run is alive.

    The keeper takes it and hands the descriptor down to the process that holds the namespaces together, so it is free
    only when both are gone: the kernel frees it, however they ended, and no pid can be mistaken for another.
    """

    descriptor: int

    @classmethod
    def take(cls, run: Run) -> Ownership:
        """Takes the lock of a run that was just made, so that nobody else can have it."""
        descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(descriptor)


def is_alive(run: Run) -> bool:
    """Whether somebody owns the run.

    To be asked under `leftovers.machine_lock`, because it takes the run's lock for a moment.
    """
    try:
        descriptor = os.open(run.lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
