"""The Kubernetes API as Batch uses it: makes and deletes pods, reads nodes, and watches the pods of all its jobs."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import ssl
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import urllib3

from .manifest import JOB_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Seconds. A healthy API server answers in milliseconds; a bookmark comes about once a minute on a quiet watch.
_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=30.0)
_WATCH_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=120.0)
#: Seconds before the next try after the API server was not there.
_PAUSE: Final = 0.2
#: What a server that is being restarted answers, and what it answers when it has too much to do.
_TRANSIENT: Final = (429, 500, 502, 503, 504)
#: Calls at the same time; each pod takes two.
_CONNECTIONS: Final = 24


class ClusterRefused(Exception):  # noqa: N818  an answer, no failure
    """The API server has refused, and would again."""


class ClusterGone(Exception):  # noqa: N818  may be back soon
    """Nobody knows what became of a request."""


class Cluster:
    """One API server; `seen` is called for each pod that is as it says, or gone, from the watch's own thread."""

    def __init__(self, kubeconfig: Mapping[str, Any], seen: Callable[[Cluster, dict[str, Any], bool], None]) -> None:
        cluster, user = kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]
        self._server = cluster["server"]
        self._seen = seen
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._closed, self._listed = threading.Event(), threading.Event()
        self._watching: urllib3.BaseHTTPResponse | None = None
        self._nodes: dict[tuple[str, ...], list[dict[str, str]]] = {}
        self._turn = itertools.count()
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._pool = urllib3.PoolManager(
            ssl_context=_context(cluster, user), maxsize=_CONNECTIONS, retries=False, headers=headers
        )
        self._thread = threading.Thread(target=self._follow, name="batch-watch", daemon=True)
        self._thread.start()

    def wait_until_watched(self) -> None:
        """A pod that is made before would have an end that nobody sees."""
        while not self._listed.wait(timeout=_PAUSE):
            if self._closed.is_set():
                raise ClusterGone("closed")

    def close(self) -> None:
        """Ends the watch."""
        self._closed.set()
        watching = self._watching
        if watching is not None:
            with contextlib.suppress(Exception):
                watching.shutdown()
        self._thread.join()
        self._pool.clear()

    def create(self, pod: Mapping[str, Any]) -> None:
        """Makes a pod; again does no harm, since its name is unique."""
        status, answer = self._request("POST", f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods", pod)
        if status not in (200, 201, 409):
            raise ClusterRefused(answer.get("message", str(status)))

    def delete(self, namespace: str, name: str, *, grace: int | None) -> None:
        """Deletes a pod with the grace period that it has itself, or another; one that is gone is no error."""
        options = {} if grace is None else {"gracePeriodSeconds": grace}
        self._request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", options)

    def patch(self, namespace: str, name: str, change: Mapping[str, Any], *, of: str = "") -> None:
        """Changes a pod, or a part of it such as `/status`."""
        status, answer = self._request("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}{of}", change)
        if status not in (200, 404):
            raise ClusterRefused(answer.get("message", str(status)))

    def node(self, names: list[str] | None) -> dict[str, str]:
        """Name and uid of the node whose turn it is: among those names, or all that take pods when first asked."""
        nodes = self._nodes.get(tuple(names or ()))
        if nodes is None:
            _, answer = self._request("GET", "/api/v1/nodes", None)
            nodes = [
                {"name": one["metadata"]["name"], "uid": one["metadata"]["uid"]}
                for one in answer.get("items", [])
                if (one["metadata"]["name"] in names if names else _takes_pods(one))
            ]
            if not nodes:
                raise ClusterRefused("there is no node")
            self._nodes[tuple(names or ())] = nodes
        return nodes[next(self._turn) % len(nodes)]

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, dict[str, Any]]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            found = self._pool.request(
                method,
                self._server + path,
                body=None if body is None else json.dumps(body).encode(),
                headers={**self._pool.headers, "Content-Type": kind},
                timeout=_TIMEOUT,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ClusterGone(str(error)) from error
        if found.status in _TRANSIENT:
            raise ClusterGone(f"{found.status}")
        return found.status, dict(found.json())

    def _follow(self) -> None:
        while not self._closed.is_set():
            try:
                version = self._list()
                self._listed.set()
                while version and not self._closed.is_set():
                    version = self._watch(version)
            except (ClusterGone, urllib3.exceptions.HTTPError, OSError, ValueError, KeyError):
                self._closed.wait(_PAUSE)

    def _list(self) -> str:
        """Tells of everything there is, and of what has gone since; returns the version to watch from."""
        query = urlencode({"labelSelector": JOB_LABEL})
        _, answer = self._request("GET", f"/api/v1/pods?{query}", None)
        found = {_key(pod): pod for pod in answer["items"]}
        for key in self._known.keys() - found.keys():
            self._seen(self, self._known.pop(key), True)
        for key, pod in found.items():
            self._known[key] = pod
            self._seen(self, pod, False)
        return str(answer["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> str:
        """Watches until the server ends it; returns where to go on, or nothing if that is too long ago."""
        wanted = {"labelSelector": JOB_LABEL, "watch": "1", "allowWatchBookmarks": "1", "resourceVersion": version}
        response = self._pool.request(
            "GET", f"{self._server}/api/v1/pods?{urlencode(wanted)}", preload_content=False, timeout=_WATCH_TIMEOUT
        )
        self._watching = response
        try:
            if self._closed.is_set():
                return ""
            for line in _lines(response):
                if self._closed.is_set():
                    break
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return ""
                pod = event["object"]
                version = pod["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._tell(pod, is_gone=event["type"] == "DELETED")
        finally:
            self._watching = None
            response.close()
        return version if response.status == 200 else ""

    def _tell(self, pod: dict[str, Any], *, is_gone: bool) -> None:
        if is_gone:
            self._known.pop(_key(pod), None)
        else:
            self._known[_key(pod)] = pod
        self._seen(self, pod, is_gone)


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Whole lines, each as soon as it is there."""
    rest = b""
    for chunk in response.stream(amt=None, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _key(pod: Mapping[str, Any]) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _takes_pods(node: Mapping[str, Any]) -> bool:
    taints = node["spec"].get("taints", [])
    return not node["spec"].get("unschedulable") and not any(one["effect"] != "PreferNoSchedule" for one in taints)


def _context(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    if "certificate-authority-data" in cluster:
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
    else:
        context = ssl.create_default_context(cafile=cluster.get("certificate-authority"))
    if "client-certificate-data" in user:
        # The ssl module takes certificates from files only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            file.flush()
            context.load_cert_chain(file.name)
    return context


def rfc3339(seconds: float) -> str:
    """A time as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
