"""The few requests that the harness itself makes to the API server, as the user `admin`."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pki import Authority

#: Seconds; a healthy API server answers these requests in milliseconds.
_TIMEOUT = 10.0

ADMIN = "admin"


@dataclass(frozen=True)
class Api:
    """A client of one API server."""

    authority: Authority
    port: int

    def get(self, path: str) -> tuple[int, bytes]:
        """Returns status and body; raises OSError while nobody answers."""
        root, admin = self.authority.root, self.authority.client(ADMIN)
        context = ssl.create_default_context(cafile=str(root.certificate))
        context.load_cert_chain(str(admin.certificate), str(admin.key))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=_TIMEOUT, context=context)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Whether the API server says that it serves, bootstrap roles included."""
        return self._succeeds("/readyz")

    def has_default_service_account(self) -> bool:
        """Whether the controllers have come far enough to let a pod into a namespace."""
        return self._succeeds("/api/v1/namespaces/default/serviceaccounts/default") and self._succeeds(
            "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
        )

    def is_node_ready(self, name: str) -> bool:
        """Whether the kubelet of the node says it takes pods, and the controllers have untainted it."""
        node = self._read(f"/api/v1/nodes/{name}")
        if node is None or node["spec"].get("taints"):
            return False
        conditions = node.get("status", {}).get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def _succeeds(self, path: str) -> bool:
        try:
            return self.get(path)[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def _read(self, path: str) -> Any:  # noqa: ANN401  JSON
        try:
            status, body = self.get(path)
        except (OSError, http.client.HTTPException):
            return None
        return json.loads(body) if status == http.client.OK else None
