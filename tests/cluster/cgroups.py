"""Finds and removes the control groups that the pods of a run were put into, in every hierarchy the machine mounts.

With version 1 of cgroups there is a hierarchy per controller, with version 2 one for all; both can be mounted at once.
A cgroup is a folder that goes away only by rmdir, from the leaves up, once no process is left in it (cgroups(7)).
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from .errors import ClusterError

#: What the kubelet looks for in version 2, as far as the machine has it.
_CONTROLLERS = frozenset({"cpu", "cpuset", "hugetlb", "memory", "pids"})

#: Seconds. The kernel empties a cgroup a moment after its last process has ended.
_REMOVAL_LIMIT = 30.0
_POLL_INTERVAL = 0.05


def hierarchies() -> list[Path]:
    """Where cgroup file systems are mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(fields[1]) for fields in mounts if fields[2] in ("cgroup", "cgroup2")]


def create(name: str) -> None:
    """Makes the cgroup in every hierarchy; the kubelet requires that its root is there, with these controllers."""
    for hierarchy in hierarchies():
        available = hierarchy / "cgroup.controllers"  # only in version 2, where a child has what its parent passes on
        for controller in _CONTROLLERS.intersection(available.read_text().split() if available.exists() else ()):
            # Refused inside a container whose root cgroup holds processes; the kubelet then says what it lacks.
            with suppress(OSError):
                (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
        (hierarchy / name).mkdir(exist_ok=True)


def existing(prefix: str) -> list[str]:
    """Names of top-level cgroups with this prefix, in any hierarchy."""
    return sorted({path.name for hierarchy in hierarchies() for path in hierarchy.glob(f"{prefix}*") if path.is_dir()})


def remove(name: str) -> None:
    """Ends what still runs in the cgroup and removes it."""
    deadline = time.monotonic() + _REMOVAL_LIMIT
    for hierarchy in hierarchies():
        root = hierarchy / name
        while root.exists():
            for folder, _, _ in os.walk(root, topdown=False):
                _kill_processes(Path(folder))
                # Busy until its processes are gone; tried again in the next round.
                with suppress(OSError):
                    os.rmdir(folder)  # noqa: PTH106  the path is a str
            if root.exists():
                if time.monotonic() > deadline:
                    raise ClusterError(f"the cgroup {root} does not go away")
                time.sleep(_POLL_INTERVAL)


def _kill_processes(cgroup: Path) -> None:
    with suppress(OSError):
        for pid in (cgroup / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
