"""The keeper of one run: starts the namespaces and the command under test, and removes everything afterwards.

It promises that when it ends, nothing of the run is left, whichever way the run ended; and that it ends when the
harness does, because it then reads the end of the control pipe. It leaves starting the components to ``inside``.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import description, inside, leftovers
from .errors import ClusterError
from .kernel import become_subreaper, children, die_with_parent, end_children
from .machine import PATH, find_program
from .settings import LOGS_TO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .run import Ownership, Plan, Run

#: On the control pipe: the harness leaves on purpose, the cluster stays.
DETACH = 0

#: Added to a signal's number on the control pipe when the terminal sent it, which then has reached the command as well.
FROM_TERMINAL = 0x80

#: On the status pipe: the cluster has started.
READY = b"r"

#: Seconds the command gets to clean up after itself once it was told to end.
_COMMAND_LIMIT = 60.0

#: The keeper is woken by these and decides by itself what they mean.
_HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True)
class Assignment:
    """What the harness wants from a keeper."""

    run: Run
    program: Path
    plugins: Path
    #: To run once the cluster has started; None keeps the cluster until SIGTERM.
    command: list[str] | None
    #: To read from: bytes as above, and the end of file when the harness is gone.
    control: int
    #: To write `READY` to.
    status: int
    #: What signals did when the harness was started, for the command to start with.
    dispositions: Mapping[signal.Signals, Any]
    #: The process group that gets the terminal's signals, for the command to be in.
    process_group: int


class _Over(Exception):  # noqa: N818  not an error
    """Ends the run with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Keeper:
    """The state of a run, from the keeper's view."""

    assignment: Assignment
    plan: Plan
    ownership: Ownership
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _namespaces: int | None = None
    _command: int | None = None
    _kill_command_at: float | None = None
    _partial_message: bytes = b""

    def keep(self) -> int:
        """Runs the cluster and the command; returns the exit status."""
        start = time.monotonic()
        run = self.assignment.run
        (run.folder / "keeper.pid").write_text(str(os.getpid()))
        self._watch(self.assignment.control, self._on_control)
        self._watch(self._signal_descriptor(), self._on_signal)
        say(f"starting Kubernetes in {run.folder}")
        inside.prepare(run, self.plan)
        self._enter_namespaces()
        try:
            while not run.description.exists() or self._namespaces is None:
                self._step()
            say(f"ready after {time.monotonic() - start:.1f} s")
            os.write(self.assignment.status, READY)
            if self.assignment.command is not None:
                self._start_command(self.assignment.command)
            while True:
                self._step()
        except _Over as over:
            return over.status

    def _watch(self, descriptor: int, handler: Callable[[int], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, handler)

    def _step(self) -> None:
        """Waits for one thing to happen and reacts to it."""
        timeout = None if self._kill_command_at is None else max(0.0, self._kill_command_at - time.monotonic())
        events = self._selector.select(timeout)
        for key, _ in events:
            key.data(key.fd)
        if not events:
            say(f"the command did not end within {_COMMAND_LIMIT:.0f} s after it was told to; killing it")
            raise _Over(128 + signal.SIGKILL)

    def _signal_descriptor(self) -> int:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        for number in _HEARD:
            signal.signal(number, lambda _number, _frame: None)
        # Some terminals stop whoever writes from the background, which is where the keeper is.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        signal.set_wakeup_fd(write)
        return read

    def _enter_namespaces(self) -> None:
        """Starts `inside` in new PID and mount namespaces."""
        read, write = os.pipe()
        host_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        log = os.open(self.assignment.run.logs / "inside.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

        def arrange() -> None:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            for descriptor in (write, host_proc, self.ownership.descriptor):
                os.set_inheritable(descriptor, True)

        unshare = [find_program("unshare"), "--pid", "--mount", "--propagation=private", "--mount-proc", "--fork"]
        python = [sys.executable, "-m", "cluster", "inside", self.assignment.run.name, str(write), str(host_proc)]
        environment = {"PATH": PATH, "PYTHONPATH": str(description.PACKAGE_PARENT), "PYTHONDONTWRITEBYTECODE": "1"}
        self._namespaces = self._spawn([*unshare, "--kill-child=SIGKILL", *python], environment, arrange)
        for descriptor in (write, host_proc, log):
            os.close(descriptor)
        self._watch(read, self._on_message)

    def _start_command(self, command: list[str]) -> None:
        environment = description.environment(self.assignment.run.description)

        def arrange() -> None:
            # Where the terminal's keys reach it, and where it may read from the terminal.
            os.setpgid(0, self.assignment.process_group)

        self._command = self._spawn(command, environment, arrange)

    def _spawn(self, command: list[str], environment: Mapping[str, str], arrange: Callable[[], None]) -> int:
        keeper = os.getpid()
        pid = os.fork()
        if pid != 0:
            return pid
        try:
            die_with_parent(keeper)
            signal.set_wakeup_fd(-1)
            for number, disposition in self.assignment.dispositions.items():
                signal.signal(number, disposition)
            arrange()
            os.execvpe(command[0], command, environment)  # noqa: S606  no shell, by intent
        except OSError as error:
            say(f"cannot start {command[0]}: {error.strerror}")
        finally:
            os._exit(127)

    def _on_control(self, descriptor: int) -> None:
        received = os.read(descriptor, 1)
        if not received:
            raise _Over(1)
        if received[0] == DETACH:
            self._selector.unregister(descriptor)
            self._leave_terminal()
        else:
            self._on_request_to_end(received[0] & ~FROM_TERMINAL, pass_on=not received[0] & FROM_TERMINAL)

    def _leave_terminal(self) -> None:
        log = os.open(self.assignment.run.logs / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)

    def _on_request_to_end(self, number: int, *, pass_on: bool) -> None:
        if self._command is None:
            raise _Over(128 + number)
        if pass_on:
            with suppress(ProcessLookupError):
                os.kill(self._command, number)
        # A person at the terminal may want to interrupt what runs in the command and go on, as in a Python shell.
        patient = number == signal.SIGINT and not pass_on
        if self._kill_command_at is None and not patient:
            self._kill_command_at = time.monotonic() + _COMMAND_LIMIT

    def _on_signal(self, descriptor: int) -> None:
        for number in os.read(descriptor, 4096):
            if number == signal.SIGCHLD:
                self._reap()
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._on_request_to_end(number, pass_on=True)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._command:
                code = os.waitstatus_to_exitcode(status)
                raise _Over(128 - code if code < 0 else code)
            if pid == self._namespaces:
                self._namespaces = None
                self._read_messages()
                say(f"the cluster has ended{_tail(self.assignment.run.logs / 'inside.log')}")
                raise _Over(1)

    def _on_message(self, descriptor: int) -> None:
        received = os.read(descriptor, 65536)
        if not received:
            self._selector.unregister(descriptor)
            return
        *lines, self._partial_message = (self._partial_message + received).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "say" in message:
                say(message["say"])

    def _read_messages(self) -> None:
        """Prints what `inside` wrote before it ended."""
        for key in list(self._selector.get_map().values()):
            if key.data == self._on_message:
                while key.fd in self._selector.get_map():
                    self._on_message(key.fd)


def main(assignment: Assignment) -> int:
    """The keeper's life, in a process that the harness has forked; returns the exit status."""
    if assignment.command is None:
        os.setsid()
    else:
        # Out of reach of the terminal and of a `kill -9` of the group; still in the session, as the command must be.
        os.setpgid(0, 0)
    become_subreaper()
    run = assignment.run
    try:
        plan, ownership = leftovers.claim(run, program=assignment.program, plugins=assignment.plugins)
    except ClusterError as error:
        say(str(error))
        return 1
    status = 1
    try:
        status = Keeper(assignment, plan, ownership).keep()
    except ClusterError as error:
        say(str(error))
    finally:
        _clean_up(run, status)
    return status


def _clean_up(run: Run, status: int) -> None:
    left = [line for line in children().values() if "cluster inside" not in line]
    if left:
        say("ending what the command left running:\n  " + "\n  ".join(left))
    end_children()
    folder = os.environ.get(LOGS_TO)
    if status != 0 and folder:
        target = Path(folder) / run.name
        shutil.copytree(run.logs, target, dirs_exist_ok=True)
        say(f"the cluster's logs are in {target}")
    with leftovers.machine_lock():
        leftovers.remove(run)


def _tail(log: Path) -> str:
    text = log.read_text(errors="replace").strip()
    return f":\n{text[-4000:]}" if text else ""


def say(text: str) -> None:
    """Tells the user, if there is still somebody to read it."""
    with suppress(OSError):
        print(f"cluster: {text}", file=sys.stderr, flush=True)
