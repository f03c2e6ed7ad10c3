"""Brokers as processes of their own: started, killed, started again at the same address, and gone with the test."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import podbroker
from cluster.network import free_port
from e2e.proxy import Proxy, Tls, make_certificate
from e2e.waiting import wait_for

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Mapping

    from e2e.site import Namespace, Site

#: Seconds until a debug build answers, and until a drained one has ended.
START_LIMIT: Final = 60.0
#: The target that every broker has unless a test says otherwise.
TARGET: Final = "local"
#: Who the brokers are to the cluster. Each process of a parallel run makes a user of its own.
BROKER_USER: Final = f"e2e-broker-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"


def program() -> Path:
    """The broker under test; `make build` puts it there."""
    return Path(os.environ["PODBROKER_OUT"]) / "bin/podbroker"


def toml(value: Mapping[str, Any], *, path: str = "") -> str:
    """TOML of tables, arrays of tables and plain values; strings are JSON strings, which TOML reads alike."""
    lines = []
    for key, one in value.items():
        if not isinstance(one, dict) and not (isinstance(one, list) and one and isinstance(one[0], dict)):
            lines.append(f"{key} = {json.dumps(one)}")
    for key, one in value.items():
        if isinstance(one, dict):
            lines += [f"[{path}{key}]", toml(one, path=f"{path}{key}.")]
        elif isinstance(one, list) and one and isinstance(one[0], dict):
            for entry in one:
                lines += [f"[[{path}{key}]]", toml(entry, path=f"{path}{key}.")]
    return "\n".join(lines)


@dataclass(kw_only=True)
class Broker:
    """One broker process at one address."""

    folder: Path
    config: dict[str, Any]
    port: int
    admin_port: int
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    """More of the command line of `serve`."""

    def __post_init__(self) -> None:
        """Nothing runs yet."""
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[podbroker.Client] = []

    @property
    def address(self) -> str:
        """What a client connects to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The broker's own process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far, over all its starts."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> Broker:
        """Starts the process and waits until it answers."""
        self.launch()
        wait_for("the broker to be ready", self._is_ready, within=START_LIMIT)
        return self

    def launch(self) -> None:
        """Starts the process. The kernel kills it when we die, however we die."""
        (self.folder / "config.toml").write_text(toml(self.config))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "--"),
                    *(program(), "serve", "--config", self.folder / "config.toml"),
                    *self.arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_bare_environment(), **self.environment},
                # A Ctrl-C in the terminal is ours to answer.
                start_new_session=True,
            )

    def client(self, **settings: Any) -> podbroker.Client:  # noqa: ANN401  those of podbroker.Client
        """A client of this broker, closed with it."""
        client = podbroker.Client(self.address, **settings)
        self._clients.append(client)
        return client

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Does kill -9: nothing can be tidied up."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self, *, within: float) -> int:
        """Waits for its end and returns the exit code."""
        assert self._process is not None
        return self._process.wait(timeout=within)

    def close(self) -> None:
        """Ends it and its clients for good."""
        for client in self._clients:
            client.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the broker ended with {self._process.returncode}:\n{self.log[-4000:]}")
        url = f"http://127.0.0.1:{self.admin_port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _bare_environment() -> dict[str, str]:
    """Nothing of ours but the way to programs: no ambient kubeconfig, no ambient credentials."""
    return {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ} | {"RUST_BACKTRACE": "1"}


@dataclass(kw_only=True)
class Brokers:
    """Makes brokers for one test and ends them after it."""

    site: Site
    folder: Path

    def __post_init__(self) -> None:
        """None yet."""
        self._all: list[Broker] = []
        self._lock = threading.Lock()

    def prepare(
        self,
        *,
        namespace: Namespace | str,
        instance: str = "e2e",
        target: str = TARGET,
        kubeconfig: Path | None = None,
        api_server: Proxy | None = None,
        **sections: Any,  # noqa: ANN401  more of the configuration, by section
    ) -> Broker:
        """A broker with one target in the namespace; not started yet."""
        with self._lock:
            folder = self.folder / f"broker-{len(self._all)}"
            folder.mkdir()
            if kubeconfig is None:
                kubeconfig = self.site.user(BROKER_USER)
            if api_server is not None:
                kubeconfig = _through(api_server, kubeconfig, folder)
            port, admin_port = free_port(), free_port()
            config: dict[str, Any] = {
                "instance": instance,
                "listen": f"127.0.0.1:{port}",
                "admin_listen": f"127.0.0.1:{admin_port}",
                "targets": [
                    {
                        "name": target,
                        "kind": "kubeconfig",
                        "kubeconfig": str(kubeconfig),
                        "namespace": namespace if isinstance(namespace, str) else namespace.name,
                        "result_image": image(),
                    }
                ],
                **sections,
            }
            broker = Broker(folder=folder, config=config, port=port, admin_port=admin_port)
            self._all.append(broker)
        return broker

    def start(self, **settings: Any) -> Broker:  # noqa: ANN401  those of `prepare`
        """A broker that runs and answers."""
        return self.prepare(**settings).start()

    @contextlib.contextmanager
    def api_server_proxy(self) -> Iterator[Proxy]:
        """A proxy in front of the API server that sees requests; give it to `start`."""
        # `_through` looks for the authority there.
        folder = self.folder / "proxy"
        folder.mkdir(exist_ok=True)
        files = make_certificate(folder)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(files.chain, files.key)
        settings = self.site.api.configuration
        upstream = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            upstream.load_cert_chain(settings.cert_file, settings.key_file)
        place = urlsplit(settings.host)
        assert place.hostname is not None
        address = (place.hostname, place.port or 443)
        with Proxy(upstream=address, tls=Tls(server=server, upstream=upstream)) as proxy:
            yield proxy

    def close(self) -> None:
        """Ends them all; what they wrote is shown with a failed test."""
        for broker in self._all:
            broker.close()

    def show(self) -> str:
        """The ends of their logs."""
        return "\n".join(
            f"--- {broker.folder.name}\n{broker.log[-6000:]}"
            for broker in self._all
            if (broker.folder / "log").exists()
        )


def image() -> str:
    """The image of the result sidecar: on our cluster the one that is there."""
    from e2e.manifests import IMAGE

    return IMAGE


def _through(proxy: Proxy, kubeconfig: Path, folder: Path) -> Path:
    """A copy of a kubeconfig that points at the proxy and trusts its certificate."""
    import yaml

    content = yaml.safe_load(kubeconfig.read_text())
    current = next(one for one in content["contexts"] if one["name"] == content["current-context"])
    place = next(one for one in content["clusters"] if one["name"] == current["context"]["cluster"])
    place["cluster"] = {
        "server": f"https://127.0.0.1:{proxy.port}",
        "certificate-authority": str(folder.parent / "proxy/authority.crt"),
    }
    path = folder / "proxied.kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path
