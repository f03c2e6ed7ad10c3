"""One long-running program of the cluster, as a child of this process."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .machine import PATH

if TYPE_CHECKING:
    from collections.abc import Callable

_TAIL_LINES = 25
_TAIL_BYTES = 16_384


def always() -> bool:
    """The readiness of a component that others do not wait for."""
    return True


def accepts(address: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(address)) == 0


@dataclass
class Component:
    """A program, how to start it, and how it is doing."""

    name: str
    command: list[str]
    log: Path
    #: Whether the component does its work, as seen from outside of it.
    ready: Callable[[], bool] = always
    #: Besides a search path and a home.
    environment: dict[str, str] = field(default_factory=dict)
    #: In this process's own PID namespace; None when it does not run.
    pid: int | None = None
    #: How the last process ended, in words; None while it runs and when it was ended on purpose.
    failure: str | None = None
    _ending: bool = field(default=False, repr=False)

    def start(self, *arguments: str) -> None:
        """Starts the program in a session of its own, with an environment of its own, and this once more arguments.

        The environment holds nothing of the caller's: a proxy, a KUBECONFIG or an AWS profile set there would change
        what the cluster does.
        """
        command = [*self.command, *arguments]
        environment = {"PATH": PATH, "HOME": str(self.log.parent), **self.environment}
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        self.failure, self._ending = None, False
        self.pid = os.posix_spawn(command[0], command, environment, file_actions=actions, setsid=True, setsigmask=[])

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if the program runs."""
        if self.pid is not None:
            self._ending = number in (signal.SIGTERM, signal.SIGKILL) or self._ending
            os.kill(self.pid, number)

    def ended(self, status: int) -> None:
        """Records the end of the process; `status` is what waitpid(2) told."""
        self.pid = None
        code = os.waitstatus_to_exitcode(status)
        reason = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        self.failure = None if self._ending else f"{self.name} {reason}"

    def tail(self) -> str:
        """The last lines of the log."""
        try:
            content = self.log.read_bytes()[-_TAIL_BYTES:]
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(content.decode(errors="replace").splitlines()[-_TAIL_LINES:])


def host_pids(host_proc: int) -> dict[int, int]:
    """Maps pids of this PID namespace to those of the machine's.

    Args:
        host_proc: a descriptor of the machine's /proc, opened before this process got a /proc of its own.
    """
    here = Path("/proc/self/ns/pid").readlink()
    root = Path(f"/proc/self/fd/{host_proc}")
    pids = {}
    for entry in root.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "ns/pid").readlink() != here:
                continue
            status = (entry / "status").read_text()
        except OSError:
            continue  # ended meanwhile
        # "NSpid: <outermost> ... <innermost>", proc(5)
        line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
        pids[int(line.split()[-1])] = int(entry.name)
    return pids
