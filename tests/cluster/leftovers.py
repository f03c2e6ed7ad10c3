"""Claims the machine-wide names of a run, and removes what a run has left under them."""

from __future__ import annotations

import fcntl
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import cgroups, identity, network
from .errors import ClusterError
from .run import PREFIX, Ownership, Plan, Run, is_alive
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Only root writes there, on every distribution.
_MACHINE_LOCK = Path("/run/podbroker-test-cluster.lock")


@contextmanager
def machine_lock() -> Iterator[None]:
    """Held while a run is made, judged or removed, so that nobody takes one that is half there for one left behind."""
    with _MACHINE_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def claim(run: Run, *, program: Path, plugins: Path) -> tuple[Plan, Ownership]:
    """Makes the run's folder, bridge and cgroups, after removing what killed runs have left."""
    with machine_lock():
        for stale in _stale():
            remove(stale)
        try:
            run.folder.mkdir(mode=0o700)
        except FileExistsError:
            raise ClusterError(f"{run.folder} is in use") from None
        try:
            ownership = Ownership.take(run)
            plan = Plan(
                program=str(program),
                plugins=str(plugins),
                api_port=network.free_port(),
                kubelet_port=network.free_port(),
                authenticator_port=network.free_port(),
                aws_ports={
                    name: network.free_port()
                    for name in ("sts", "eks", "s3", "batch", "sqs", "logs", "proxy", "control")
                },
                python=identity.python(),
                network=network.create_bridge(run.bridge),
                settings=Settings.from_environment(),
            )
            cgroups.create(run.cgroup)
            run.logs.mkdir()
            plan.save(run)
        except BaseException:
            remove(run)
            raise
    return plan, ownership


def sweep() -> list[str]:
    """Removes what killed runs have left; returns their names."""
    with machine_lock():
        stale = _stale()
        for run in stale:
            remove(run)
    return [run.name for run in stale]


def remove(run: Run) -> None:
    """Removes everything that bears the run's name. Its processes and mounts have gone with its namespaces.

    To be called under `machine_lock`: two who remove the same would stumble over each other.
    """
    cgroups.remove(run.cgroup)
    network.remove_bridge(run.bridge)
    # Last, because it holds the lock: as long as the folder is there, somebody will come back to finish this.
    if run.folder.exists():
        shutil.rmtree(run.folder)


def _stale() -> list[Run]:
    names = {run.name for run in Run.all()} | set(network.bridges(PREFIX)) | set(cgroups.existing(PREFIX))
    return [run for run in map(Run, sorted(names)) if not is_alive(run)]
