"""Runs a command with a cluster, and starts and ends a cluster that stays: what the harness process itself does."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from . import build, description, keeper, leftovers, machine
from .errors import ClusterError
from .kernel import become_subreaper, end_children
from .run import PREFIX, Run, is_alive
from .settings import GIVEN_CLUSTER

#: What a user or a supervisor sends to end a run.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: siginfo's si_code for a signal that the kernel sent, such as the terminal's (sigaction(2)).
_SI_KERNEL = 0x80

#: Seconds for a cluster to be gone after it was told to; it takes about one.
_DOWN_LIMIT = 90.0
_POLL_INTERVAL = 0.1


def run(command: list[str]) -> int:
    """Runs the command with a cluster of its own, or the one that the user has named; returns its exit status."""
    if given := os.environ.get(GIVEN_CLUSTER):
        _run_with_given(Path(given).resolve(), command)
    return _keep(Run(PREFIX + secrets.token_hex(4)), command)


def up(name: str) -> int:
    """Starts a cluster that stays until `down`."""
    chosen = Run.named(name)
    if chosen.description.exists() and _is_alive(chosen):
        print(f"cluster: {chosen.name} is up already", file=sys.stderr)
    elif status := _keep(chosen, None):
        return status
    print(f"export PODBROKER_TEST_CLUSTER={chosen.description}")
    return 0


def down(name: str) -> int:
    """Ends a cluster that `up` has started."""
    chosen = Run.named(name)
    if not chosen.folder.exists():
        print(f"cluster: {chosen.name} is not up", file=sys.stderr)
        return 0
    if _is_alive(chosen):
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((chosen.folder / "keeper.pid").read_text()), signal.SIGTERM)
        deadline = time.monotonic() + _DOWN_LIMIT
        while _is_alive(chosen):
            if time.monotonic() > deadline:
                raise ClusterError(f"{chosen.name} does not end; its log: {chosen.logs / 'keeper.log'}")
            time.sleep(_POLL_INTERVAL)
    leftovers.sweep()
    return 0


def status() -> int:
    """Prints the clusters on this machine and whether they live."""
    with leftovers.machine_lock():
        for found in Run.all():
            state = "left behind; `sweep` removes it"
            if is_alive(found):
                state = "up" if found.description.exists() else "starting"
            print(f"{found.name}\t{state}\t{found.description}")
    return 0


def sweep() -> int:
    """Removes what killed runs have left."""
    for name in leftovers.sweep():
        print(f"removed {name}")
    return 0


def _is_alive(chosen: Run) -> bool:
    with leftovers.machine_lock():
        return is_alive(chosen)


def _run_with_given(kubeconfig: Path, command: list[str]) -> NoReturn:
    if not kubeconfig.is_file():
        raise ClusterError(f"{GIVEN_CLUSTER} names {kubeconfig}, which is not a file")
    environment = description.environment(description.write_given(kubeconfig))
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  no shell, by intent
    except OSError as error:
        raise ClusterError(f"cannot start {command[0]}: {error.strerror}") from None


def _keep(chosen: Run, command: list[str] | None) -> int:
    """Forks the keeper and forwards signals to it until it ends, or, without a command, until the cluster is up."""
    machine.check()
    plugins = machine.find_plugins()
    if plugins is None:
        raise ClusterError("the container network plugins are missing")
    program = build.build()
    dispositions = {number: _disposition(number) for number in (*_ENDING, signal.SIGCHLD, signal.SIGTTOU)}
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_ENDING, signal.SIGCHLD))
    become_subreaper()
    control_read, control = os.pipe()
    status_read, status_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(control)
        os.close(status_read)
        assignment = keeper.Assignment(
            run=chosen,
            program=program,
            plugins=plugins,
            command=command,
            control=control_read,
            status=status_write,
            dispositions=dispositions,
            process_group=os.getpgrp(),
        )
        code = 1
        try:
            code = keeper.main(assignment)
        except BaseException:  # noqa: BLE001  this process must not go on as if it were the harness
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(control_read)
    os.close(status_write)
    if command is None:
        return _await_ready(pid, control, status_read)
    return _await_end(pid, control)


def _await_ready(pid: int, control: int, status_read: int) -> int:
    # A signal now ends this process, and the keeper with it, which reads the end of the control pipe.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    if os.read(status_read, 1) == keeper.READY:
        os.write(control, bytes([keeper.DETACH]))
        return 0
    return _finish(os.waitpid(pid, 0)[1])


def _await_end(pid: int, control: int) -> int:
    while True:
        received = signal.sigwaitinfo((*_ENDING, signal.SIGCHLD))
        if received.si_signo == signal.SIGCHLD:
            ended, wait_status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return _finish(wait_status)
            continue
        from_terminal = keeper.FROM_TERMINAL if received.si_code == _SI_KERNEL else 0
        with suppress(BrokenPipeError):
            os.write(control, bytes([received.si_signo | from_terminal]))


def _finish(wait_status: int) -> int:
    """Does the keeper's work if it was killed, and translates its end into an exit status."""
    if os.WIFSIGNALED(wait_status):
        keeper.say("the keeper of the cluster was killed; cleaning up in its place")
        end_children()
        leftovers.sweep()
        return 128 + os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status)


def _disposition(number: signal.Signals) -> signal.Handlers:
    """What a new program shall find for a signal: ignored if it was (as under nohup), else the default."""
    return signal.SIG_IGN if signal.getsignal(number) == signal.SIG_IGN else signal.SIG_DFL
