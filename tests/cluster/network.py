"""The part of a run that lives in the machine's own network: ports on 127.0.0.1, and a bridge for the pods."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from .errors import ClusterError
from .machine import find_program

#: Below the range that the kernel takes for outgoing connections (32768 and up), so that no connection grabs a port
#: between its choice and the server's start.
_PORTS = range(20000, 32000)

#: Workers of pytest-xdist take theirs from different shares, so that nobody is given the port of a server that somebody
#: else has not started yet, or starts again. The first is everybody else's.
_SHARES = 16

#: Candidates for the pods' network: a corner of 10.0.0.0/8 that Kubernetes distributions and VPNs rarely use.
_NETWORKS = [f"10.{second}.{third}" for second in range(213, 220) for third in range(256)]

_TRIES = 200

#: What this process was given, though its server may not listen yet, or not at the moment.
_given: set[int] = set()


def ports() -> range:
    """The ports of this process."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    return _PORTS[(int(worker) % (_SHARES - 1) + 1 if worker.isdigit() else 0) :: _SHARES]


def free_port() -> int:
    """A port on which nobody listens, and none that this process was given before."""
    for _ in range(_TRIES):
        port = random.choice(ports())
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise ClusterError(f"no free port found between {_PORTS.start} and {_PORTS.stop}")


def create_bridge(name: str) -> str:
    """Makes the bridge, with the first address of a network that no route of this machine touches.

    Returns:
        The first three numbers of that /24 network.
    """
    taken = _routed_networks()
    candidates = random.sample(_NETWORKS, len(_NETWORKS))
    for prefix in candidates:
        network = ipaddress.ip_network(f"{prefix}.0/24")
        if not any(network.overlaps(other) for other in taken):
            break
    else:
        raise ClusterError("every candidate for the pods' network is already routed on this machine")
    _ip("link", "add", name, "type", "bridge")
    _ip("address", "add", f"{prefix}.1/24", "dev", name)
    _ip("link", "set", name, "up")
    return prefix


def bridges(prefix: str) -> list[str]:
    """The bridges whose names begin with the prefix."""
    return sorted(path.name for path in Path("/sys/class/net").glob(f"{prefix}*") if (path / "bridge").exists())


def remove_bridge(name: str) -> None:
    """Removes the bridge and the cables to its pods, if they are there."""
    if name not in bridges(name):
        return
    for port in sorted(path.name for path in Path("/sys/class/net", name, "brif").iterdir()):
        # The kernel removes it together with the pod's network namespace, which it does at its leisure.
        with suppress(ClusterError):
            _ip("link", "delete", port)
    _ip("link", "delete", name)


def _routed_networks() -> list[ipaddress.IPv4Network]:
    routes = json.loads(_ip("-json", "-4", "route", "show", "table", "all"))
    # A default route leads everywhere, and says nothing about what is at home here.
    destinations = [route["dst"] for route in routes if route["dst"] != "default"]
    networks = [ipaddress.IPv4Network(destination, strict=False) for destination in destinations]
    return [network for network in networks if network.prefixlen > 0]


def _ip(*arguments: str) -> str:
    command = [find_program("ip"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
