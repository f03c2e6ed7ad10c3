"""The kubelet's log rotation, changed for a part of the benchmark."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.handle import Cluster

#: Larger than any log of the benchmark.
NEVER: Final = "100Gi"


@contextlib.contextmanager
def rotated_at(cluster: Cluster, size: str) -> Iterator[None]:
    """Lets the kubelet rotate a log at this size, which it looks at as often as it can; afterwards as before."""
    path = Path(cluster.facts["kubelet_configuration"])
    before = path.read_text()
    changed = {**json.loads(before), "containerLogMaxSize": size, "containerLogMonitorInterval": "3s"}
    path.write_text(json.dumps(changed, indent=1))
    cluster.component("kubelet", "restart")
    try:
        yield
    finally:
        path.write_text(before)
        cluster.component("kubelet", "restart")
