"""Process 1 of the run's namespaces: starts every component, watches them, and starts and stops single ones on request.

It promises one thing to the keeper, which started it: a line ``{"ready": true}`` on the message pipe once pods can run,
or its own end, with the reason in a ``{"say": ...}`` line. When it ends, the kernel ends everything it started.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from . import control_plane, description, identity, node
from .api import ADMIN, Api
from .component import Component, host_pids
from .errors import ClusterError
from .pki import MASTERS, Authority
from .run import Plan, Run

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds a component may take to be ready: many times what it takes, for a machine that is busy with something else.
_READY_LIMIT = 180.0

#: Seconds a component gets between SIGTERM and SIGKILL.
_STOP_LIMIT = 20.0

_POLL_INTERVAL = 0.1


class Inside:
    """The components of one run."""

    def __init__(self, run: Run, *, messages: int, host_proc: int) -> None:
        """Plans the components; nothing is started yet.

        Args:
            run: whose folder holds the plan.
            messages: a descriptor to write lines of JSON to, for the keeper.
            host_proc: a descriptor of the machine's /proc.
        """
        self._run, self._plan = run, Plan.load(run)
        self._messages, self._host_proc = messages, host_proc
        self._authority = authority = Authority(run.pki)
        self._api = api = Api(authority, self._plan.api_port)
        self._etcd = control_plane.etcd(run, self._plan)
        self._api_server = control_plane.api_server(run, self._plan, authority, api)
        self._controllers = control_plane.controller_manager(run, self._plan, authority)
        self._scheduler = control_plane.scheduler(run, self._plan)
        self._containerd = node.containerd(run, self._plan)
        self._kubelet = node.kubelet(run, self._plan, authority, api)
        self._authenticator = identity.authenticator(run, self._plan, authority)
        self._aws = None if self._plan.python is None else identity.aws(run, self._plan, authority)
        self._components = [
            *(self._etcd, self._api_server, self._controllers, self._scheduler),
            *(self._containerd, self._kubelet, self._authenticator),
            *([] if self._aws is None else [self._aws]),
        ]

    def start(self) -> None:
        """Starts everything; returns when a pod can run."""
        node.hide_machine(self._run)
        self._etcd.start()
        self._containerd.start()
        self._wait(self._etcd, self._etcd.ready)
        self._api_server.start()
        self._wait(self._containerd, self._containerd.ready)
        node.import_images(self._run)
        self._wait(self._api_server, self._api_server.ready)
        # Only now: they would take a refused connection as a reason to wait longer before the next.
        for component in (self._controllers, self._scheduler, self._kubelet):
            component.start()
        # Nobody needs these to start, so they do not take the processor from those that are waited for.
        self._authenticator.start()
        if self._aws is not None:
            self._aws.start()
        self._wait(self._controllers, self._api.has_default_service_account)
        self._wait(self._kubelet, self._kubelet.ready)
        self._wait(self._authenticator, self._authenticator.ready)
        if self._aws is not None:
            self._wait(self._aws, self._aws.ready)

    def serve(self) -> None:
        """Announces the cluster, then answers requests and watches the components for ever."""
        self._describe()
        with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
            listener.bind(str(self._run.control))
            listener.listen()
            wake_in, wake_out = os.pipe()
            os.set_blocking(wake_in, False)
            os.set_blocking(wake_out, False)
            signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
            signal.set_wakeup_fd(wake_out)
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake_in, selectors.EVENT_READ)
            self._send({"ready": True})
            while True:
                for key, _ in selector.select():
                    if key.fileobj is listener:
                        self._answer(listener)
                    else:
                        os.read(wake_in, 4096)
                self._reap()

    def _wait(self, component: Component, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_LIMIT
        while not condition():
            self._reap()
            failed = next((other for other in self._components if other.failure), None)
            if failed is not None:
                raise ClusterError(f"{failed.failure}; the end of {failed.log}:\n{failed.tail()}")
            if time.monotonic() > deadline:
                late = f"{component.name} is not ready after {_READY_LIMIT:.0f} s"
                raise ClusterError(f"{late}; the end of {component.log}:\n{component.tail()}")
            time.sleep(_POLL_INTERVAL)

    def _reap(self) -> None:
        """Takes note of every child that has ended; process 1 also inherits the orphans of its namespace."""
        changed = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for component in self._components:
                if component.pid == pid:
                    changed = True
                    component.ended(status)
                    if component.failure and self._run.description.exists():
                        self._send({"say": f"{component.failure}; log: {component.log}"})
        if changed and self._run.description.exists():
            self._describe()

    def _describe(self) -> None:
        pids = host_pids(self._host_proc)
        contents = description.of_started(self._run, self._plan, self._components, pids)
        description.write(self._run.description, contents)

    def _answer(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as stream:
            # Somebody who connects and says nothing must not hold up the others.
            connection.settimeout(_STOP_LIMIT)
            try:
                request = json.loads(stream.readline())
                answer = self._act(request["action"], request["component"], request["arguments"])
                print(json.dumps(answer), file=stream, flush=True)
            except (OSError, ValueError, KeyError) as error:
                print(f"a request on the control socket failed: {error!r}", file=sys.stderr, flush=True)

    def _act(self, action: str, name: str, arguments: list[str]) -> dict[str, Any]:
        component = next((component for component in self._components if component.name == name), None)
        if component is None:
            return {"error": f"no component {name}; there are {', '.join(c.name for c in self._components)}"}
        if action == "ready":
            return {"ready": component.pid is not None and component.ready()}
        if action == "start":
            if component.pid is None:
                component.start(*arguments)
        elif action == "stop":
            self._stop(component)
        elif action == "kill":
            component.send(signal.SIGKILL)
            self._await_end(component)
        elif action == "pause":
            component.send(signal.SIGSTOP)
        elif action == "resume":
            component.send(signal.SIGCONT)
        else:
            return {"error": f"no action {action}; there are start, stop, kill, pause, resume, ready"}
        self._describe()
        return {}

    def _stop(self, component: Component) -> None:
        component.send(signal.SIGTERM)
        component.send(signal.SIGCONT)
        if not self._await_end(component):
            component.send(signal.SIGKILL)
            self._await_end(component)

    def _await_end(self, component: Component) -> bool:
        deadline = time.monotonic() + _STOP_LIMIT
        while component.pid is not None and time.monotonic() < deadline:
            self._reap()
            time.sleep(_POLL_INTERVAL / 10)
        return component.pid is None

    def _send(self, message: dict[str, Any]) -> None:
        send(self._messages, message)


def send(messages: int, message: dict[str, Any]) -> None:
    """Writes one line to the keeper."""
    os.write(messages, (json.dumps(message) + "\n").encode())


def prepare(run: Run, plan: Plan) -> None:
    """Makes what components read: certificates, kubeconfigs, policies. Needs no namespace."""
    authority = Authority(run.pki)
    authority.create()
    authority.kubeconfig(ADMIN, server=plan.server, groups=(MASTERS,))
    control_plane.issue_certificates(run, plan, authority)
    node.issue_certificates(plan, authority)
    identity.prepare(run, plan, authority)
    description.write_programs(run, plan)


def main(name: str, *, messages: int, host_proc: int) -> int:
    """Runs as process 1 until it is killed; returns only when the cluster does not start."""
    try:
        inside = Inside(Run(name), messages=messages, host_proc=host_proc)
        inside.start()
        inside.serve()
    except ClusterError as error:
        send(messages, {"say": f"the cluster did not start: {error}"})
    except Exception:  # noqa: BLE001  whatever it is, the keeper must hear of it
        send(messages, {"say": f"the cluster failed:\n{traceback.format_exc()}"})
    return 1
