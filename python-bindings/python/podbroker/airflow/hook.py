"""The connection to a broker: where it is, how the worker proves who it is, which target is the default.

A connection of type ``podbroker`` has host, port and schema (``https``, ``http`` or ``unix``; for ``unix`` the host is
the socket's path); its password is the bearer token, or the extra ``token_file`` names a file that holds it. The hook
also plays the part that the pod operator expects of its hook, as far as that can be done without a cluster credential.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from podbroker import Client, TargetPlace
from podbroker.airflow._compat import AIRFLOW_V_3_2_PLUS, AirflowException, BaseHook
from podbroker.airflow.chain import readable, told, walk
from podbroker.airflow.get_provider_info import get_provider_info
from podbroker.airflow.identity import target_selector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk.definitions.connection import Connection

    from podbroker.airflow.chain import Chain

__all__ = ["PodbrokerHook"]

DEFAULT_PORT = 50051
"""The port of gRPC's own examples, which the broker takes when it is not told another one."""

CALL_RETRY_SECONDS = 5.0
"""How long one call is tried again inside the client. The operator asks in between whether its task was killed."""

_TLS_FILES = ("ca_file", "client_certificate_file", "client_key_file")

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


class PodbrokerHook(BaseHook):
    """Connects to a podbroker broker."""

    conn_name_attr = "podbroker_conn_id"
    default_conn_name = "podbroker_default"
    conn_type = "podbroker"
    hook_name = "podbroker"

    def __init__(
        self,
        podbroker_conn_id: str = default_conn_name,
        *,
        target: str | Mapping[str, str] | None = None,
        **kwargs: Any,  # noqa: ANN401 -- whatever the base class of the Airflow version takes
    ) -> None:
        """``target`` wins over the default target of the connection."""
        super().__init__(**kwargs)
        self.podbroker_conn_id = podbroker_conn_id
        self._target = target

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection; read once."""
        return self.get_connection(self.podbroker_conn_id)

    @cached_property
    def conn(self) -> Client:
        """The client, made once. It connects at the first call."""
        return Client(**self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """What the client is made with. May hold the token: not for logs."""
        return {"address": self.address, "retry_for": CALL_RETRY_SECONDS, **self._credentials()}

    @property
    def tls_files(self) -> tuple[str, ...]:
        """The places of the certificates and of the key, as far as the connection names some."""
        return tuple(file for name in _TLS_FILES if (file := self._extra(name)))

    @property
    def address(self) -> str:
        """The broker's address, as ``podbroker.Client`` takes it."""
        connection = self.connection
        host = connection.host or ""
        if "://" in host or host.startswith("unix:"):
            return host
        if not host:
            message = f"The connection {self.podbroker_conn_id!r} has no host"
            raise AirflowException(message)
        schema = connection.schema or ("http" if host in _LOOPBACK else "https")
        if schema == "unix":
            return f"unix:{host}"
        if schema not in {"http", "https"}:
            message = (
                f"The connection {self.podbroker_conn_id!r} has the schema {schema!r}; it may be https, http or unix"
            )
            raise AirflowException(message)
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"{schema}://{host}:{connection.port or DEFAULT_PORT}"

    @property
    def selector(self) -> str | TargetPlace | None:
        """The target that was given, else the connection's default, else None."""
        return target_selector(self._target) or target_selector(self._extra("target"))

    @property
    def target(self) -> str | TargetPlace:
        """The target to run at: the one given, else the connection's default."""
        selector = self.selector
        if selector is None:
            message = f"No target: neither the operator nor the connection {self.podbroker_conn_id!r} names one"
            raise AirflowException(message)
        return selector

    def get_conn(self) -> Client:
        """Return the client."""
        return self.conn

    def check_chain(self, *, asker: str = "") -> Chain:
        """Walk the chain from here to a pod at the target. A broken link is part of the answer and no exception.

        ``asker`` says for people who asks, for example the task.
        """
        return walk(self, asker=asker)

    def test_connection(self) -> tuple[bool, str]:
        """Ask the broker who it is and who we are, and walk the way to the default target if there is one."""
        chain = self.check_chain()
        if chain.broken is not None:
            return False, told(chain.broken)
        found = {check.link: check.detail for check in chain.checks if not check.subject}
        words = f"podbroker ({found['broker']}) knows us as {found.get('caller', 'a caller')}"
        target = self.selector
        return True, f"{words}; target {readable(target)} can be used" if target is not None else words

    # What the pod operator expects of its hook (PodOperatorHookProtocol).

    @property
    def core_v1_client(self) -> Any:  # noqa: ANN401 -- upstream's protocol says CoreV1Api, which we do not have
        """Refuse: the worker has no credential of the cluster."""
        message = "There is no Kubernetes client here: the broker holds the credentials of the cluster"
        raise AirflowException(message)

    @property
    def is_in_cluster(self) -> bool:
        """Whether the pod runs in the worker's own cluster: it does not."""
        return False

    def get_pod(self, name: str, namespace: str) -> Any:  # noqa: ANN401 -- as the protocol's V1Pod
        """Refuse: a pod is known by its execution, through the operator's ``client``."""
        message = f"Pod {namespace}/{name} cannot be read by its name: use the operator's client"
        raise AirflowException(message)

    def get_namespace(self) -> str | None:
        """Return the target's namespace if the target was given by its parts; the broker knows it in any case."""
        selector = target_selector(self._target)
        return selector.namespace or None if isinstance(selector, TargetPlace) else None

    def get_xcom_sidecar_container_image(self) -> str | None:
        """Return None: the broker adds its own sidecar."""
        return None

    def get_xcom_sidecar_container_resources(self) -> str | None:
        """Return None: the broker adds its own sidecar."""
        return None

    def get_xcom_sidecar_container_security_context(self) -> str | None:
        """Return None: the broker adds its own sidecar."""
        return None

    @cached_property
    def _extras(self) -> dict[str, Any]:
        # Once: each look at extra_dejson tells the supervisor what to mask.
        return dict(self.connection.extra_dejson)

    def _extra(self, name: str) -> str | None:
        value = self._extras.get(name)
        return str(value) if value else None

    def _credentials(self) -> dict[str, Any]:
        names = ("token_file", *_TLS_FILES, "server_name")
        given: dict[str, Any] = {name: value for name in names if (value := self._extra(name))}
        if ("client_certificate_file" in given) != ("client_key_file" in given):
            message = (
                f"The connection {self.podbroker_conn_id!r} has one of client_certificate_file and client_key_file:"
                " a client certificate needs both"
            )
            raise AirflowException(message)
        if self.connection.password:
            if "token_file" in given:
                message = f"The connection {self.podbroker_conn_id!r} has both a password and a token_file: choose one"
                raise AirflowException(message)
            given["token"] = self.connection.password
        return given

    if not AIRFLOW_V_3_2_PLUS:
        # Airflow 3.2 reads the form from the provider info, and warns of a class that has these methods.

        @classmethod
        def get_connection_form_widgets(cls) -> dict[str, Any]:
            """Return the extra fields of the connection form."""
            from flask_appbuilder.fieldwidgets import BS3TextFieldWidget  # of the web server only
            from wtforms import StringField

            fields = _connection_type()["conn-fields"]
            return {
                name: StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())
                for name, field in fields.items()
            }

        @classmethod
        def get_ui_field_behaviour(cls) -> dict[str, Any]:
            """Return how the standard fields of the connection form look."""
            behaviour = _connection_type()["ui-field-behaviour"]
            return {key.replace("-", "_"): value for key, value in behaviour.items()}


def _connection_type() -> dict[str, Any]:
    declared: dict[str, Any] = get_provider_info()["connection-types"][0]
    return declared
