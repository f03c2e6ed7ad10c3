"""Executions whose pods kwok plays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from bench.processes import drive
from bench.stage import Stage, say
from e2e.manifests import shell
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.kwok import Kwok
    from e2e.broker import Broker
    from e2e.site import Namespace

#: Seconds until all pods run.
LIMIT: Final = 600.0


def submit(
    stage: Stage, kwok: Kwok, broker: Broker, *, target: str, namespace: Namespace, count: int, name: str
) -> Path:
    """Submits so many and waits until all pods run. Returns a file with a line of JSON for each: `name` and `pod`."""
    manifest, names = stage.folder / f"{name}.json", stage.folder / f"{name}.names"
    manifest.write_text(json.dumps(shell("true")))
    made = drive(
        *("submit", f"--address={broker.address}", f"--target={target}", f"--manifest={manifest}"),
        *(f"--count={count}", "--prefix=played", f"--names={names}", f"--nodes={','.join(kwok.names)}"),
    )
    say(f"submitted in {made['seconds']:.0f} s; waiting for kwok")
    wait_for("all pods to run", lambda: _pending(stage, namespace.name) == 0, within=LIMIT, every=2)
    return names


def _pending(stage: Stage, namespace: str) -> int:
    """How many pods do not run yet; the API server counts them."""
    api: Any = stage.site.core
    listed = api.list_namespaced_pod(namespace, field_selector="status.phase=Pending", limit=1, _preload_content=False)
    return len(json.loads(listed.data)["items"])
