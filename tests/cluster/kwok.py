"""Nodes without a kubelet, and pods on them without containers: kwok plays both, thousands at little cost.

The program is built when it is first asked for, and kept as the cluster's own is. A pod gets to such a node by its name
(`nodeName`), is running at once, and stays so until somebody writes its status or deletes it. It has no log, unless a
file is given that all of them have as theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import build
from .errors import ClusterError
from .network import free_port
from .pki import Authority

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .handle import Cluster

VERSION: Final = "v0.8.0"
PROGRAM: Final = build.Program(
    name="kwok",
    source=Path(__file__).parent / "kwok",
    package="sigs.k8s.io/kwok/cmd/kwok",
    flags=("-trimpath", "-buildvcs=false", "-ldflags", "-s -w"),
    what=f"kwok {VERSION}: about 2 minutes on 2 cores, once",
)

#: kwok's own name for who plays a node.
_ANNOTATION: Final = "kwok.x-k8s.io/node"
#: Pods of one node; more than Kubernetes' own limit, which nobody checks here.
PODS: Final = 1100
#: Seconds until the nodes are ready.
_LIMIT: Final = 120.0


@dataclass(kw_only=True)
class Kwok:
    """Plays so many nodes while the block lasts."""

    cluster: Cluster
    nodes: int
    folder: Path
    """For its log and its files."""
    prefix: str = "played"
    """Of the nodes' names."""
    log: Path | None = None
    """The log of each container, in the form in which a container runtime writes it. Not many more than a hundred can
    be followed at a time: kwok takes an inotify instance for each, of which Linux gives a user 128 (inotify(7))."""

    def __post_init__(self) -> None:
        """Nothing runs yet."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def names(self) -> list[str]:
        """The nodes."""
        return [f"{self.prefix}{number}" for number in range(self.nodes)]

    def __enter__(self) -> Self:
        """Starts it and waits for the nodes."""
        program = build.build(PROGRAM)
        kubeconfig = self.cluster.user("kwok")
        stages = self.folder / "stages.json"
        logs = [_logs(self.log)] if self.log is not None else []
        # JSON is YAML.
        stages.write_text("\n---\n".join(map(json.dumps, [*_STAGES, *logs])))
        self.cluster.kubectl(
            "apply",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [*map(_node, self.names)]}),
        )
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--", str(program), f"--kubeconfig={kubeconfig}", f"--config={stages}"),
            *("--manage-all-nodes=false", f"--manage-nodes-with-annotation-selector={_ANNOTATION}=played"),
            *("--node-lease-duration-seconds=40", "--cidr=10.64.0.0/14", "--node-ip=127.0.0.1"),
            *(self._kubelet() if self.log is not None else ["--node-port=0"]),
        ]
        with (self.folder / "kwok.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it; its pods and nodes stay for whoever made the cluster."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _kubelet(self) -> list[str]:
        """The arguments with which it answers the API server as a kubelet does."""
        port = free_port()
        files = Authority(Path(self.cluster.facts["folder"]) / "pki").issue("kwok-kubelet", hosts=("IP:127.0.0.1",))
        return [
            *(f"--node-port={port}", f"--server-address=127.0.0.1:{port}"),
            *(f"--tls-cert-file={files.certificate}", f"--tls-private-key-file={files.key}"),
        ]

    def _wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _LIMIT
        while True:
            found = json.loads(self.cluster.kubectl("get", "nodes", "-o", "json"))["items"]
            ready = [one["metadata"]["name"] for one in found if _is_ready(one)]
            if set(self.names) <= set(ready):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "kwok.log").read_text(errors="replace")
                raise ClusterError(f"the played nodes are not ready:\n{log[-3000:]}")
            time.sleep(0.5)


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _node(name: str) -> dict[str, Any]:
    room = {"cpu": "1k", "memory": "4Ti", "pods": str(PODS)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": {_ANNOTATION: "played"}, "labels": {"type": "kwok"}},
        # No pod of a test ends up here unless it is sent here.
        "spec": {"taints": [{"key": _ANNOTATION, "value": "played", "effect": "NoSchedule"}]},
        "status": {"allocatable": room, "capacity": room},
    }


def _stage(name: str, kind: str, conditions: list[dict[str, Any]], then: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": conditions},
            "next": then,
        },
    }


def _logs(file: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "ClusterLogs",
        "metadata": {"name": "all"},
        "spec": {"logs": [{"logsFile": str(file)}]},
    }


_DELETED: Final = ".metadata.deletionTimestamp"

_NODE_READY: Final = """\
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
addresses:
- type: InternalIP
  address: {{ NodeIP | Quote }}
daemonEndpoints:
  kubeletEndpoint:
    Port: {{ NodePort }}
phase: Running
"""

_POD_RUNNING: Final = """\
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
conditions:
- type: Initialized
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
- type: Ready
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
- type: ContainersReady
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state:
    running:
      startedAt: {{ $now | Quote }}
{{ end }}
"""

_STAGES: Final = (
    _stage(
        "node-ready",
        "Node",
        [
            {
                "key": '.status.conditions.[] | select( .type == "Ready" ) | .status',
                "operator": "NotIn",
                "values": ["True"],
            }
        ],
        {"statusTemplate": _NODE_READY},
    ),
    _stage(
        "pod-running",
        "Pod",
        [
            {"key": _DELETED, "operator": "DoesNotExist"},
            {"key": ".status.phase", "operator": "In", "values": ["Pending"]},
        ],
        {"statusTemplate": _POD_RUNNING},
    ),
    _stage("pod-gone", "Pod", [{"key": _DELETED, "operator": "Exists"}], {"delete": True}),
)
