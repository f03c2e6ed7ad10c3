"""The listeners: the services over plain HTTP, the proxy that is STS by TLS, and the control API.

Control, JSON over HTTP: `PUT /config` and `GET /config`, `PUT /faults`, `POST /expire` with `{"role": ARN or null}`,
`GET` and `DELETE /calls`, `GET /held`, `GET /secrets`, `POST /reset`; `/batch/...` is in the package `batch`,
`/sqs/...` in `sqs`, and `/logs/...` in `logs`.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Final

from . import eks, logs, s3, sqs, sts
from .batch import wire as batch
from .batch.control import control as control_batch
from .refusals import Answer, Refused, eks_error, json_answer, s3_error, sts_error
from .signatures import Request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType
    from typing import Self

    from .state import State

#: Who is connected and says nothing for this many seconds is let go.
_IDLE: Final = 120.0

#: What listens.
NAMES: Final = ("sts", "eks", "s3", "batch", "sqs", "logs", "proxy", "control")

#: An outage as the services tell of it.
_FAULTS: Final = {
    "throttle": ("Throttling", "Rate exceeded", 400),
    "unavailable": ("ServiceUnavailable", "Service is unavailable", 503),
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    #: Hundreds connect at once in some tests.
    request_queue_size = 1024

    def __init__(self, port: int, handler: type[_Handler], state: State) -> None:
        self.state = state
        super().__init__(("127.0.0.1", port), handler)

    def handle_error(self, _request: object, _client: object) -> None:
        """A client that goes away is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = _IDLE
    #: Head and body are two writes, and the second would wait 40 ms for the client to acknowledge the first.
    disable_nagle_algorithm = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header tells the doubles' time: clients measure their own clock by it."""
        return super().date_time_string(timestamp or self.server.state.now().timestamp())

    def log_message(self, *_arguments: object) -> None:
        """Nothing: a target can hold a session token. What happened is printed by `_act`."""

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value.strip() for name, value in self.headers.items()}
        request = Request(
            method=self.command, target=self.path, headers=headers, body=self.rfile.read(length) if length else b""
        )
        answer = self.respond(request)
        if answer is None:
            self.close_connection = True
            return
        with contextlib.suppress(ConnectionError):
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    def respond(self, request: Request) -> Answer | None:
        """The answer; None cuts the connection."""
        raise NotImplementedError


class _Sts(_Handler):
    def respond(self, request: Request) -> Answer | None:
        state, action = self.server.state, sts.action_of(request)
        call: dict[str, Any] = {"service": "sts", "action": action, "presigned": "X-Amz-Signature" in request.query}
        try:
            return _act(call, state, lambda: sts.answer(request, state, call))
        except Refused as refused:
            return sts_error(refused, as_json=sts.wants_json(request))


class _Eks(_Handler):
    def respond(self, request: Request) -> Answer | None:
        state = self.server.state
        call: dict[str, Any] = {"service": "eks", "action": eks.action_of(request), "presigned": False}
        try:
            return _act(call, state, lambda: eks.answer(request, state, call))
        except Refused as refused:
            return eks_error(refused)


class _S3(_Handler):
    def respond(self, request: Request) -> Answer | None:
        state = self.server.state
        call: dict[str, Any] = {"service": "s3", "action": s3.action_of(request), "presigned": False}
        try:
            return _act(call, state, lambda: s3.answer(request, state, call))
        except Refused as refused:
            return s3_error(refused)


class _Modelled(_Handler):
    """A service whose requests and answers are compared with botocore's model."""

    service: ClassVar[str]
    module: ClassVar[ModuleType]

    def respond(self, request: Request) -> Answer | None:
        state, action = self.server.state, self.module.action_of(request)
        call: dict[str, Any] = {"service": self.service, "action": action, "presigned": False}
        try:
            return _act(call, state, lambda: self.module.answer(request, state, call))
        except Refused as refused:
            made: Answer = self.module.error(refused, state, action)
            return made
        except Exception as error:
            # A client would only see its connection end.
            state.batch.violate([f"{action}: {error!r}"])
            raise
        finally:
            self.count(action, call)

    def count(self, action: str, call: dict[str, Any]) -> None:
        """Keeps what became of a call."""


class _Batch(_Modelled):
    service: ClassVar[str] = "batch"
    module: ClassVar[ModuleType] = batch

    def count(self, action: str, call: dict[str, Any]) -> None:
        self.server.state.batch.counts.add(action, call["outcome"])


class _Sqs(_Modelled):
    service: ClassVar[str] = "sqs"
    module: ClassVar[ModuleType] = sqs


class _Logs(_Modelled):
    service: ClassVar[str] = "logs"
    module: ClassVar[ModuleType] = logs


def _act(call: dict[str, Any], state: State, answer: Any) -> Answer | None:  # noqa: ANN401  a function without arguments
    call |= {"time": state.now().timestamp(), "outcome": "OK"}
    try:
        fault = state.take_fault(call["service"], call["action"])
        if fault == "reset":
            call["outcome"] = "reset"
            return None
        if fault in _FAULTS:
            code, message, status = _FAULTS[fault]
            raise Refused(code, message, status=status)  # noqa: TRY301  noted like any other
        made: Answer | None = answer()
        if fault == "lost_answer":
            call["outcome"], made = "lost_answer", None
    except Refused as refused:
        call["outcome"] = refused.code
        raise
    else:
        return made
    finally:
        state.note(call)
        shown = {key: value for key, value in call.items() if key not in ("policy", "tags") and value is not None}
        state.say(json.dumps(shown))


class _Control(_Handler):
    def respond(self, request: Request) -> Answer | None:
        state = self.server.state
        try:
            value = json.loads(request.body) if request.body else None
        except ValueError as error:
            return json_answer({"error": str(error)}, status=HTTPStatus.BAD_REQUEST)
        if not request.target.startswith(("/batch/", "/sqs/", "/logs/")):
            return _control(state, f"{request.method} {request.target}", value)
        try:
            if request.target.startswith("/sqs/"):
                return json_answer(sqs.control(state.sqs, request.method, request.target, value))
            if request.target.startswith("/logs/"):
                return json_answer(logs.control(state.logs, request.method, request.target))
            return json_answer(control_batch(state.batch, request.method, request.target, value))
        except (KeyError, ValueError) as error:
            return json_answer({"error": repr(error)}, status=HTTPStatus.BAD_REQUEST)


def _control(state: State, what: str, value: Any) -> Answer:  # noqa: ANN401  JSON
    answer: object = {}
    match what:
        case "GET /config":
            answer = state.config
        case "PUT /config":
            state.configure(value)
        case "PUT /faults":
            state.set_faults(value)
        case "POST /expire":
            answer = {"expired": state.expire(value["role"])}
        case "GET /calls":
            answer = state.calls()
        case "DELETE /calls":
            state.forget_calls()
        case "GET /held":
            answer = state.held
        case "GET /secrets":
            answer = state.secrets()
        case "POST /reset":
            state.reset()
        case _:
            return json_answer({"error": f"no {what}"}, status=HTTPStatus.NOT_FOUND)
    return json_answer(answer)


class _Proxy(_Sts):
    """Takes CONNECT to any host, is that host, and answers as STS."""

    context: ssl.SSLContext

    def do_CONNECT(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.close_connection = True
        with contextlib.suppress(OSError), self.context.wrap_socket(self.connection, server_side=True) as inner:
            _Inner(inner, self.client_address, self.server)


class _Inner(_Sts):
    """What is said inside of the tunnel."""


def serve(state: State, ports: Mapping[str, int], *, certificate: Path, key: Path) -> None:
    """Listens on the ports that `NAMES` says for ever; control comes when all others listen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    proxy = type("_Proxy", (_Proxy,), {"context": context})
    for name, handler in {**_SERVICES, "proxy": proxy}.items():
        _in_thread(_Server(ports[name], handler, state), name)
    _Server(ports["control"], _Control, state).serve_forever()


_SERVICES: Final[dict[str, type[_Handler]]] = {
    "sts": _Sts,
    "eks": _Eks,
    "s3": _S3,
    "batch": _Batch,
    "sqs": _Sqs,
    "logs": _Logs,
}


class Doubles:
    """The services and the control API inside of this process, on free ports, while the block lasts; no proxy."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.urls: dict[str, str] = {}
        self._running: list[tuple[_Server, threading.Thread]] = []

    def __enter__(self) -> Self:
        """Listens; `urls` says where, by the names of the services and `control`."""
        for name, handler in {**_SERVICES, "control": _Control}.items():
            server = _Server(0, handler, self.state)
            self.urls[name] = f"http://127.0.0.1:{server.server_port}"
            self._running.append((server, _in_thread(server, name)))
        return self

    def __exit__(self, *_error: object) -> None:
        """Nobody listens any more, and pods that Batch has made are gone."""
        for server, thread in self._running:
            server.shutdown()
            server.server_close()
            thread.join()
        self.state.batch.close()


def _in_thread(server: _Server, name: str) -> threading.Thread:
    thread = threading.Thread(target=server.serve_forever, name=name, daemon=True)
    thread.start()
    return thread
