"""The command line: ``python3 -m cluster --help``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from . import build, inside, lifecycle, machine
from .errors import ClusterError
from .handle import Cluster
from .run import Run
from .settings import DESCRIPTION

if TYPE_CHECKING:
    from collections.abc import Callable

_DEFAULT_NAME = "dev"


def main(arguments: list[str]) -> int:
    """Does what the arguments say; returns the exit status."""
    # Split by hand: what follows the first "--" is another program's, and may hold a "--" of its own.
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_args(arguments[:split])
    options.rest = arguments[split + 1 :]
    act: Callable[[argparse.Namespace], int] = options.act
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        # A build that is told to end shall clean up after itself.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        return act(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def _build(_options: argparse.Namespace) -> int:
    machine.check()
    print(build.build())
    return 0


def _run(options: argparse.Namespace) -> int:
    if not options.rest:
        raise ClusterError("nothing to run; say `python3 -m cluster run -- COMMAND`")
    return lifecycle.run(options.rest)


def _kubectl(options: argparse.Namespace) -> int:
    program = _chosen(options.name).kubectl_command()
    os.execv(program[0], [*program, *options.rest])  # noqa: S606  no shell, by intent


def _user(options: argparse.Namespace) -> int:
    print(_chosen(options.name).user(options.user, groups=tuple(options.group)))
    return 0


def _component(options: argparse.Namespace) -> int:
    _chosen(options.name).component(options.component, options.action, *options.rest)
    return 0


def _chosen(name: str | None) -> Cluster:
    """The cluster that was named; else that of the environment; else the default one of `up`."""
    if name is None and DESCRIPTION in os.environ:
        return Cluster.from_environment()
    path = Run.named(name or _DEFAULT_NAME).description
    if not path.exists():
        raise ClusterError(f"{path} is not there; `python3 -m cluster up` starts a cluster")
    return Cluster.load(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m cluster", description="A real one-node Kubernetes for tests.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(act=act)
        return command

    add("build", _build, "Install what is missing and compile Kubernetes, unless the cache has it.")
    add("run", _run, "Run a command, `run -- COMMAND ...`, with a cluster of its own.")
    up = add("up", lambda options: lifecycle.up(options.name), "Start a cluster that stays.")
    down = add("down", lambda options: lifecycle.down(options.name), "End a cluster that stays.")
    for command in (up, down):
        command.add_argument("--name", default=_DEFAULT_NAME)
    add("status", lambda _: lifecycle.status(), "List the clusters on this machine.")
    add("sweep", lambda _: lifecycle.sweep(), "Remove what killed runs have left behind.")
    kubectl = add("kubectl", _kubectl, "Call kubectl, `kubectl -- ARGUMENTS ...`, as administrator.")
    user = add("user", _user, "Make a kubeconfig for a user and print its path.")
    user.add_argument("user")
    user.add_argument("--group", action="append", default=[], help="can be repeated; default: system:masters")
    component = add(
        "component", _component, "Do something to one component; arguments after -- are added to its command line."
    )
    component.add_argument("action", choices=["start", "stop", "restart", "kill", "pause", "resume"])
    component.add_argument("component")
    for command in (kubectl, user, component):
        command.add_argument("--name", help="a cluster that `up` has started; default: that of the environment")
    _add_inside(commands)
    return parser


def _add_inside(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The keeper's way into the namespaces; without help, so that it is not listed."""
    command = commands.add_parser("inside")
    command.add_argument("run")
    command.add_argument("messages", type=int)
    command.add_argument("host_proc", type=int)
    command.set_defaults(act=_inside)


def _inside(options: argparse.Namespace) -> int:
    return inside.main(options.run, messages=options.messages, host_proc=options.host_proc)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
