"""The file that tells tests what cluster they have: JSON at the path in ``PODBROKER_TEST_CLUSTER``.

Every key is always there; in a cluster of the user's own, what the harness cannot know is null.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import identity, image, node
from .api import ADMIN
from .pki import Authority
from .run import NODE
from .settings import DESCRIPTION, cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .component import Component
    from .run import Plan, Run

#: The folder that holds this package: what PYTHONPATH must name for `python3 -m cluster`.
PACKAGE_PARENT = Path(__file__).resolve().parent.parent


def of_started(run: Run, plan: Plan, components: list[Component], pids: Mapping[int, int]) -> dict[str, Any]:
    """Describes a cluster that the harness runs; `pids` maps pids inside to the machine's."""
    return {
        "started": True,
        "name": run.name,
        "folder": str(run.folder),
        "kubeconfig": str(run.pki / f"{ADMIN}.kubeconfig"),
        "server": plan.server,
        "certificate_authority": str(Authority(run.pki).root.certificate),
        "kubectl": str(run.programs / "kubectl"),
        "ctr": str(run.programs / "ctr"),
        "harness": str(run.programs / "cluster"),
        "control_socket": str(run.control),
        "containerd_socket": str(node.containerd_socket(run)),
        "audit_log": str(run.logs / "audit.log"),
        "logs": str(run.logs),
        "pod_logs": str(node.pod_logs(run)),
        "kubelet_configuration": str(run.folder / "kubelet.json"),
        "node": NODE,
        "gateway": plan.gateway,
        "pod_subnet": plan.pod_subnet,
        "ports": {"api_server": plan.api_port, "kubelet": plan.kubelet_port},
        "authenticator_rules": str(identity.rules(run)),
        "aws": None
        if plan.python is None
        else {name: f"http://127.0.0.1:{port}" for name, port in plan.aws_ports.items()},
        "images": {"busybox": image.BUSYBOX, "pause": image.PAUSE},
        "components": {
            component.name: {
                "pid": pids.get(component.pid) if component.pid is not None else None,
                "log": str(component.log),
            }
            for component in components
        },
    }


def of_given(kubeconfig: Path) -> dict[str, Any]:
    """Describes a cluster of the user's own."""
    known = {"started": False, "kubeconfig": str(kubeconfig), "kubectl": shutil.which("kubectl"), "components": {}}
    unknown = (
        *("name", "folder", "server", "certificate_authority", "ctr", "harness", "control_socket", "containerd_socket"),
        *("audit_log", "logs", "pod_logs", "kubelet_configuration", "node", "gateway", "pod_subnet", "ports", "images"),
        *("authenticator_rules", "aws"),
    )
    return {**known, **dict.fromkeys(unknown)}


def write(path: Path, description: Mapping[str, Any]) -> None:
    """Writes the file so that a reader finds the old content or the new, never a part."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(description, indent=1) + "\n")
    partial.replace(path)


def write_given(kubeconfig: Path) -> Path:
    """Writes the description of a cluster of the user's own, where it can stay: it is small and always the same."""
    path = cache_folder() / "given-cluster.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, of_given(kubeconfig))
    return path


def write_programs(run: Run, plan: Plan) -> None:
    """Writes scripts that call kubectl, ctr and this harness for this cluster, from any folder."""
    kubeconfig = run.pki / f"{ADMIN}.kubeconfig"
    commands = {
        # Given again by the caller, --kubeconfig wins, as the last of two equal flags.
        "kubectl": f"exec {plan.program} kubectl --kubeconfig={kubeconfig}",
        "ctr": f"exec {' '.join(node.ctr(run))}",
        "cluster": f"{DESCRIPTION}={run.description} PYTHONPATH={PACKAGE_PARENT} exec {sys.executable} -m cluster",
    }
    run.programs.mkdir()
    for name, command in commands.items():
        script = run.programs / name
        script.write_text(f'#!/bin/sh\n{command} "$@"\n')
        script.chmod(0o755)


def environment(path: Path) -> dict[str, str]:
    """The environment of a command that shall find the cluster.

    The ambient KUBECONFIG is taken away: a test that forgot to name its cluster must fail, and not reach production.
    """
    return {**{key: value for key, value in os.environ.items() if key != "KUBECONFIG"}, DESCRIPTION: str(path)}
