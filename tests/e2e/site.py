"""The cluster as the tests see it: read and changed directly, beside the broker, so that they can judge it."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kubernetes import client as kubernetes
from kubernetes import config as kubernetes_config

from e2e.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.handle import Cluster

#: Every pod of a broker carries it; it keeps the outcome readable until somebody has it.
FINALIZER: Final = "podbroker.io/outcome"
#: Marks what a run has made, for a person who finds it on a cluster of their own.
MADE_BY: Final = {"app.kubernetes.io/managed-by": "podbroker-e2e"}


@dataclass(kw_only=True)
class Site:
    """One cluster and an administrator's client for it."""

    cluster: Cluster
    folder: Path
    core: kubernetes.CoreV1Api = field(init=False)
    api: kubernetes.ApiClient = field(init=False)

    def __post_init__(self) -> None:
        """Connects; nothing is read from the surroundings."""
        self.api = kubernetes_config.new_client_from_config(config_file=str(self.cluster.kubeconfig))
        self.core = kubernetes.CoreV1Api(self.api)
        self._users: dict[str, Path] = {}
        self._lock = threading.Lock()

    @property
    def is_own(self) -> bool:
        """Whether the harness started it, so that its parts may be stopped and its audit log read."""
        return bool(self.cluster.facts["started"])

    def user(self, name: str) -> Path:
        """A kubeconfig of a user of that name; on a cluster of the user's own, the one that was given."""
        with self._lock:
            if name not in self._users:
                self._users[name] = self.cluster.user(name) if self.is_own else self.cluster.kubeconfig
            return self._users[name]

    @contextlib.contextmanager
    def namespace(self, *, prefix: str = "pb-e2e", labels: dict[str, str] | None = None) -> Iterator[Namespace]:
        """A namespace of its own, ready for pods; it and what is in it are gone afterwards."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        metadata = {"name": name, "labels": {**MADE_BY, **(labels or {})}}
        self.core.create_namespace({"metadata": metadata})
        namespace = Namespace(site=self, name=name)
        try:
            # A pod is refused until the controllers have made its service account.
            wait_for("the default service account", lambda: self.has_service_account(name))
            yield namespace
        finally:
            namespace.destroy()

    def has_service_account(self, namespace: str) -> bool:
        """Whether pods are let into a namespace."""
        try:
            self.core.read_namespaced_service_account("default", namespace)
        except kubernetes.ApiException as error:
            if error.status == 404:
                return False
            raise
        return True


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """One namespace, with the questions that tests ask about its pods."""

    site: Site
    name: str

    @property
    def pods(self) -> list[dict[str, Any]]:
        """The pods, as the API server tells them."""
        answer = self.site.core.list_namespaced_pod(self.name, _preload_content=False)
        items: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return items

    @property
    def pod_names(self) -> list[str]:
        """Their names."""
        return [pod["metadata"]["name"] for pod in self.pods]

    def pod(self, name: str) -> dict[str, Any] | None:
        """One pod; None when it is gone."""
        return next((pod for pod in self.pods if pod["metadata"]["name"] == name), None)

    @property
    def only_pod(self) -> dict[str, Any]:
        """The pod, of which there must be exactly one."""
        (pod,) = self.pods
        return pod

    def delete_pod(self, name: str, *, grace: int | None = None) -> None:
        """Deletes a pod as somebody with kubectl does; a finalizer may keep it."""
        self.site.core.delete_namespaced_pod(name, self.name, grace_period_seconds=grace)

    def create(self, kind: str, body: dict[str, Any]) -> None:
        """Creates another object, such as `resource_quota`."""
        getattr(self.site.core, f"create_namespaced_{kind}")(self.name, body)

    def events(self, pod: str) -> list[dict[str, Any]]:
        """The events about a pod."""
        selector = f"involvedObject.name={pod}"
        answer = self.site.core.list_namespaced_event(self.name, field_selector=selector, _preload_content=False)
        items: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return items

    def destroy(self) -> None:
        """Takes away pods, finalizers and the namespace, whatever state they are in."""
        self.clear()
        with contextlib.suppress(kubernetes.ApiException):
            self.site.core.delete_namespace(self.name)

    def clear(self) -> None:
        """Takes away pods and their finalizers, whatever state they are in."""
        core = self.site.core
        for pod in self.pods:
            name = pod["metadata"]["name"]
            with contextlib.suppress(kubernetes.ApiException):
                core.patch_namespaced_pod(name, self.name, {"metadata": {"finalizers": None}})
            with contextlib.suppress(kubernetes.ApiException):
                core.delete_namespaced_pod(name, self.name, grace_period_seconds=0)
