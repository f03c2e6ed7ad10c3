"""Pods that the tests run. The image is a static busybox; what differs between tests is the shell script."""

from __future__ import annotations

import os
from typing import Any, Final

_OWN_IMAGE: Final = "podbroker.test/busybox:1"
#: On a cluster of the user's own, an image that has `sh` and that its nodes can pull.
_PUBLIC_IMAGE: Final = "busybox:1.37"

#: What the containers run.
IMAGE: Final = os.environ.get(
    "PODBROKER_TEST_IMAGE", _PUBLIC_IMAGE if "PODBROKER_KUBECONFIG" in os.environ else _OWN_IMAGE
)

#: Prints `ready` and runs until it is told to end; then prints `bye`.
UNTIL_TOLD: Final = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"

Manifest = dict[str, Any]


def container(name: str, script: str, **more: Any) -> Manifest:  # noqa: ANN401  fields of a container
    """A container that runs a shell script."""
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **more}


def pod(
    *containers: Manifest,
    init: tuple[Manifest, ...] = (),
    metadata: Manifest | None = None,
    **spec: Any,  # noqa: ANN401  fields of a pod's spec
) -> Manifest:
    """A pod of these containers; it has 5 seconds to end when it is told to."""
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {"terminationGracePeriodSeconds": 5, "containers": list(containers), **spec},
    }
    if init:
        manifest["spec"]["initContainers"] = list(init)
    if metadata:
        manifest["metadata"] = metadata
    return manifest


def shell(script: str, **more: Any) -> Manifest:  # noqa: ANN401  fields of a pod's spec
    """A pod of one container, `main`."""
    return pod(container("main", script), **more)


def numbered(lines: int, *, prefix: str = "line", pause: str = "") -> str:
    """A script that prints `prefix 1` to `prefix LINES`, with `pause` (of sleep) after each."""
    after = f"; sleep {pause}" if pause else ""
    return f"i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo {prefix} $i{after}; done"
