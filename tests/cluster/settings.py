"""What a test run may change about its cluster, read once from the environment.

Only settings a test needs are here. The defaults are the kubelet's and the controllers' own, so that a test sees what
a production cluster would do unless it asked for something else.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Names a cluster of the user's own; the harness then starts nothing. `KUBECONFIG` is never read: it may be production.
GIVEN_CLUSTER = "PODBROKER_KUBECONFIG"

#: Names the description file of the running cluster (`description.py`) for the command under test.
DESCRIPTION = "PODBROKER_TEST_CLUSTER"

#: Names a folder that the logs of a run whose command failed are copied to.
LOGS_TO = "PODBROKER_TEST_LOGS_TO"


@dataclass(frozen=True)
class Settings:
    """Values that Kubernetes validates by itself; a wrong one shows as a component that does not start."""

    #: Size at which the kubelet rotates a container's log (`containerLogMaxSize`).
    log_max_size: str = "10Mi"
    #: Log files kept per container, rotated ones included (`containerLogMaxFiles`, at least 2).
    log_max_files: int = 5
    #: How often the kubelet looks at log sizes (`containerLogMonitorInterval`, at least 3s).
    log_monitor_interval: str = "10s"
    #: Pods the node takes.
    max_pods: int = 110
    #: Silence of a kubelet after which its node is unreachable (`--node-monitor-grace-period`).
    node_grace_period: str = "50s"
    #: More arguments for kube-apiserver, such as a token webhook.
    api_server_arguments: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Reads `PODBROKER_TEST_*`; what is not set keeps its default."""

        def get(name: str, default: str) -> str:
            return environment.get(f"PODBROKER_TEST_{name}", default)

        return cls(
            log_max_size=get("LOG_MAX_SIZE", cls.log_max_size),
            log_max_files=int(get("LOG_MAX_FILES", str(cls.log_max_files))),
            log_monitor_interval=get("LOG_MONITOR_INTERVAL", cls.log_monitor_interval),
            max_pods=int(get("MAX_PODS", str(cls.max_pods))),
            node_grace_period=get("NODE_GRACE_PERIOD", cls.node_grace_period),
            api_server_arguments=tuple(shlex.split(get("API_SERVER_ARGUMENTS", ""))),
        )


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where built programs are kept: outside the checkout, so that all clones on a machine share them."""
    if named := environment.get("PODBROKER_CACHE"):
        return Path(named)
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "podbroker"
