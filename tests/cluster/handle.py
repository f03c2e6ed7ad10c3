"""What tests do with the cluster they were given: users, kubectl, faults in components, requests counted per user."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ClusterError
from .pki import MASTERS, Authority
from .settings import DESCRIPTION

#: Seconds for a component to be ready after it was started, and for an answer on the control socket.
_LIMIT = 180.0
_POLL_INTERVAL = 0.1


@dataclass(frozen=True)
class Cluster:
    """A running cluster, as its description file tells; `facts` are the keys of that file."""

    facts: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Cluster:
        """Reads a description file."""
        return cls(json.loads(path.read_text()))

    @classmethod
    def from_environment(cls) -> Cluster:
        """The cluster that `run` started for this process."""
        path = os.environ.get(DESCRIPTION)
        if not path:
            raise ClusterError(f"{DESCRIPTION} is not set: call this under `python3 -m cluster run -- ...`")
        return cls.load(Path(path))

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return Path(self.facts["kubeconfig"])

    def user(self, name: str, *, groups: tuple[str, ...] = ()) -> Path:
        """Makes a kubeconfig for a user of that name; without groups, one that may do everything."""
        self._require_own("users can be made")
        # The name is a prefix of its own among the authority's files: a user may well be called "ca" or "kubelet".
        authority, file = Authority(Path(self.facts["folder"]) / "pki"), f"user-{name}"
        return authority.kubeconfig(name, server=self.facts["server"], groups=groups or (MASTERS,), file=file)

    def kubectl_command(self) -> list[str]:
        """The beginning of a kubectl command as administrator."""
        if self.facts["kubectl"] is None:
            raise ClusterError("there is no kubectl on the PATH")
        # For a started cluster this repeats what its script says.
        return [self.facts["kubectl"], f"--kubeconfig={self.kubeconfig}"]

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Calls kubectl as administrator and returns what it printed."""
        command = [*self.kubectl_command(), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def component(self, name: str, action: str, *arguments: str) -> None:
        """Does one of start, stop, restart, kill, pause, resume to a component.

        `stop` and `kill` return when its process has ended, `start` and `restart` when it is ready again. Arguments
        are added to the command line of that start only, so the next one takes them back.
        """
        self._require_own("components can be stopped and started")
        if action == "restart":
            self._control(name, "stop")
            action = "start"
        self._control(name, action, *arguments)
        if action == "start":
            deadline = time.monotonic() + _LIMIT
            while not self._control(name, "ready")["ready"]:
                if time.monotonic() > deadline:
                    raise ClusterError(f"{name} is not ready {_LIMIT:.0f} s after its start")
                time.sleep(_POLL_INTERVAL)

    def requests(self, user: str) -> list[dict[str, Any]]:
        """The audit events of one user's requests so far, one per request, in the order of their ends.

        A request that is still open, such as a watch, is in the list as soon as its answer has begun.
        """
        self._require_own("requests are recorded")
        events: dict[str, dict[str, Any]] = {}
        with Path(self.facts["audit_log"]).open() as log:
            for line in log:
                # The last line may still be in the making.
                if line.endswith("\n"):
                    event = json.loads(line)
                    # Whose token was refused has no name.
                    if event["user"].get("username") == user:
                        events.pop(event["auditID"], None)
                        events[event["auditID"]] = event
        return list(events.values())

    def _control(self, component: str, action: str, *arguments: str) -> dict[str, Any]:
        request = {"action": action, "component": component, "arguments": arguments}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_LIMIT)
            connection.connect(self.facts["control_socket"])
            with connection.makefile("rw") as stream:
                print(json.dumps(request), file=stream, flush=True)
                answer: dict[str, Any] = json.loads(stream.readline() or '{"error": "no answer"}')
        if "error" in answer:
            raise ClusterError(answer["error"])
        return answer

    def _require_own(self, what: str) -> None:
        if not self.facts["started"]:
            raise ClusterError(f"{what} only in a cluster that the harness has started")
