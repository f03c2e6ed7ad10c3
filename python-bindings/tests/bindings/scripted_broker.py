"""A broker that does what the name of an execution says; run as a process of its own.

It speaks the contract with the reference implementation of gRPC and with messages made from the checked-in descriptor
set, so it shares no code with the client under test. It remembers nothing between two calls but how often each name was
asked for. Usage: ``scripted_broker.py ADDRESS [LAST | FOLDER]``; it prints the port and serves until it is killed.
Watches stop saying anything after the event number LAST. With a FOLDER it speaks TLS with the ``server.pem`` and
``server.key`` in it, and asks for a client certificate of the authority ``ca.pem``.

Names: ``ok``; ``error/CODE/REASON``; ``flaky/N`` fails N times with UNAVAILABLE; ``silent`` never answers;
``lines/CHUNKS/LINES`` prints that many; ``everything`` says one event of each kind; ``quiet`` says one and no more.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DESCRIPTORS = Path(__file__).resolve().parents[3] / "proto" / "src" / "gen" / "podbroker.v1.binpb"
DOMAIN = "podbroker.io"
#: 2026-01-02T03:04:05.000006Z
MOMENT = {"seconds": 1767323045, "nanos": 6000}


def load_contract() -> descriptor_pool.DescriptorPool:
    """Reads the contract from the checked-in descriptor set."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.Add(file)
    return pool


POOL = load_contract()


def message(name: str) -> Any:
    """Gives a class of the contract."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"podbroker.v1.{name}"))


def execution(name: str, **fields: Any) -> Any:
    """Makes an execution with every field set."""
    made = message("Execution")(
        name=name,
        execution_id="id-1",
        target="default",
        tenant="team",
        labels={"a": "b"},
        state="EXECUTION_STATE_FAILED",
        state_reason="it ended",
        outcome={
            "state": "EXECUTION_STATE_FAILED",
            "failure_class": "FAILURE_CLASS_OUT_OF_MEMORY",
            "reason": "OOMKilled",
            "message": "the container was killed",
            "exit_code": 137,
            "containers": [
                {
                    "container": "base",
                    "role": "CONTAINER_ROLE_DECIDING",
                    "exit_code": 137,
                    "signal": 9,
                    "reason": "OOMKilled",
                    "message": "bye",
                    "restart_count": 2,
                    "start_time": MOMENT,
                    "end_time": MOMENT,
                },
                {"container": "side", "role": "CONTAINER_ROLE_SIDECAR"},
            ],
        },
        attempts=[attempt()],
        create_time=MOMENT,
        end_time=MOMENT,
        spec_digest="ab" * 32,
        cancel={"requested_by": "me", "reason": "enough", "failure_class": "FAILURE_CLASS_CANCELLED_BY_CALLER"},
        release_time=MOMENT,
    )
    made.MergeFrom(message("Execution")(**fields))
    return made


def attempt() -> Any:
    """Makes an attempt."""
    return message("Attempt")(
        number=1,
        state="EXECUTION_STATE_ENDING",
        pod_name="p",
        pod_namespace="n",
        pod_uid="u",
        node_name="node",
        batch_job_id="job-1",
    )


class Broker:
    """Answers the calls."""

    def __init__(self, *, last: int | None) -> None:
        self.last = last
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()

    def submit_execution(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers with the request in the place of the pod."""
        self.follow_script(request.execution_id, context)
        seen = json_format.MessageToJson(request, descriptor_pool=POOL).encode()
        made = execution(f"targets/default/executions/{request.execution_id}", pod_json=seen)
        return message("SubmitExecutionResponse")(execution=made, claim="claim-1", created=True)

    def get_execution(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers, or fails as the name says; for the name `asked` with what was asked for."""
        self.follow_script(request.name, context)
        if request.name == "asked":
            counts = {key: str(self.asked[key]) for key in ("one", "many", "remove", "sent")}
            return message("GetExecutionResponse")(execution=execution(request.name, labels=counts))
        pod = b'{"kind":"Pod"}' if request.view == message("GetExecutionRequest")(view=2).view else b""
        return message("GetExecutionResponse")(execution=execution(request.name, pod_json=pod))

    def list_executions(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers with the request in the place of the page's only execution."""
        del context
        seen = json_format.MessageToJson(request, descriptor_pool=POOL).encode()
        return message("ListExecutionsResponse")(executions=[execution("seen", pod_json=seen)], next_page_token="more")

    def cancel_execution(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers with the request in the place of the pod."""
        self.follow_script(request.name, context)
        seen = json_format.MessageToJson(request, descriptor_pool=POOL).encode()
        return message("CancelExecutionResponse")(execution=execution(request.name, pod_json=seen))

    def release_execution(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers with the request in the place of the pod."""
        self.follow_script(request.name, context)
        seen = json_format.MessageToJson(request, descriptor_pool=POOL).encode()
        return message("ReleaseExecutionResponse")(execution=execution(request.name, pod_json=seen))

    def list_targets(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers with two targets."""
        del request, context
        place = {"cluster": "c", "region": "r", "role_arn": "arn", "namespace": "n"}
        one = {"name": "one", "kind": "TARGET_KIND_EKS", "place": place, "health": "TARGET_HEALTH_SERVING"}
        two = {"name": "two", "kind": 77, "health": "TARGET_HEALTH_UNREACHABLE", "health_reason": "gone"}
        return message("ListTargetsResponse")(targets=[one, two])

    def check_target(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Walks a chain of two links."""
        self.follow_script(request.target.name, context)
        yield message("CheckTargetResponse")(
            check={"link": "caller", "status": "CHECK_STATUS_PASSED", "detail": request.target.name}
        )
        yield message("CheckTargetResponse")(
            check={"link": "permission", "subject": "create pods", "status": "CHECK_STATUS_FAILED", "fix": "allow it"}
        )

    def get_server_info(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers with the caller's metadata and connection."""
        del request
        metadata = dict(context.invocation_metadata())
        names = [name.decode() for name in context.auth_context().get("x509_common_name", [])]
        return message("GetServerInfoResponse")(
            version="1.2.3",
            instance=context.peer(),
            features=["batch"],
            max_request_bytes=4 << 20,
            max_manifest_bytes=256 << 10,
            caller_subject=" ".join([*names, str(metadata.get("authorization", ""))]).strip(),
            caller_tenant="team",
        )

    def watch_execution(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Says the state, and then the events of the script that come after the cursor."""
        self.follow_script(request.name, context)
        with self.lock:
            self.asked["one"] += 1
        for event in self.events(request):
            yield message("WatchExecutionResponse")(event=event)
            if event.WhichOneof("event") == "end":
                return
        if not request.options.no_follow:
            wait_for_caller(context)

    def watch_executions(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Says of each execution that is added what a watch of its own would say."""
        with self.lock:
            self.asked["many"] += 1
        answer = message("WatchExecutionsResponse")
        for request in requests:
            if request.WhichOneof("request") == "remove":
                with self.lock:
                    self.asked["remove"] += 1
                continue
            name = request.add.name
            if name.startswith("error/"):
                _, code, reason = name.split("/")
                failure = {"code": getattr(grpc.StatusCode, code).value[0], "reason": reason, "message": "no"}
                yield answer(name=name, failure=failure)
                continue
            for event in self.events(request.add):
                yield answer(name=name, event=event)
                with self.lock:
                    self.asked["sent"] += 1
        wait_for_caller(context)

    def events(self, request: Any) -> Iterator[Any]:
        """The state, and the events of the script that come after the cursor."""
        done, skipped = read_cursor(request.cursor)
        for number, event in enumerate(script(request), start=1):
            is_state = number == 1
            if number <= done and not is_state:
                continue
            if self.last is not None and number > self.last:
                break
            event.cursor = request.cursor if is_state and request.cursor else str(number).encode()
            if event.WhichOneof("event") == "log_chunk":
                event.log_chunk.line_cursor = b"line:%d:" % (number - 1)
                del event.log_chunk.lines[: skipped if number == done + 1 else 0]
            yield event

    def follow_script(self, name: str, context: grpc.ServicerContext) -> None:
        """Fails, or says nothing, when the name says so."""
        words = name.split("/")
        if words[0] == "silent":
            wait_for_caller(context)
        if words[0] == "error":
            fail(context, words[1], words[2] if len(words) > 2 else "")
        if words[0] == "flaky":
            with self.lock:
                self.asked[name] += 1
                count = self.asked[name]
            if count <= int(words[1]):
                fail(context, "UNAVAILABLE", "DRAINING")


def read_cursor(cursor: bytes) -> tuple[int, int]:
    """Gives the number of the last event that was dealt with, and how many lines of the next one were."""
    if cursor.startswith(b"line:"):
        return int(cursor.split(b":")[1]), int.from_bytes(cursor[-4:], "big")
    return int(cursor or b"0"), 0


def script(request: Any) -> Iterator[Any]:
    """All events of an execution."""
    event = message("Event")
    words = request.name.split("/")
    state = execution(request.name, state="EXECUTION_STATE_RUNNING")
    yield event(state_changed={"execution": state})
    instance = {"attempt": 1, "container": "base", "restart": 0, "role": "CONTAINER_ROLE_DECIDING"}
    if words[0] == "everything":
        outcome = execution("x").outcome
        yield event(attempt_started={"attempt": attempt()})
        lines = [
            {"time_unix_nanos": 1767323045000000006, "content": b"\xff one", "partial": True},
            {"time_unix_nanos": 1767323045000000007, "content": b"two", "continues": True},
        ]
        yield event(log_chunk={"instance": instance, "lines": lines})
        yield event(heartbeat={})
        yield event(
            log_gap={
                "instance": instance,
                "reason": "GAP_REASON_ROTATED",
                "after": MOMENT,
                "lines_at_least": 3,
                "message": "rotated",
            }
        )
        yield event(log_stream_end={"instance": {**instance, "role": 99}, "complete": True})
        yield event(notice={"code": "PULLING_IMAGE", "message": "pulls", "severity": "NOTICE_SEVERITY_WARNING"})
        yield event(result={"source": "RESULT_SOURCE_SIDECAR", "content": b"{}", "not_json": "it is a word"})
        yield event(attempt_ended={"attempt": attempt(), "outcome": outcome})
    if words[0] == "lines":
        chunks, lines_each = int(words[1]), int(words[2])
        for chunk in range(chunks):
            lines = [
                {"time_unix_nanos": chunk * lines_each + line, "content": f"line {chunk * lines_each + line}".encode()}
                for line in range(lines_each)
            ]
            yield event(log_chunk={"instance": instance, "lines": lines})
    if words[0] != "quiet":
        yield event(end={"execution": execution(request.name)})


def wait_for_caller(context: grpc.ServicerContext) -> None:
    """Says nothing until the caller has gone."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait()


def fail(context: grpc.ServicerContext, code: str, reason: str) -> None:
    """Ends the call with a code and the details of the contract."""
    status = status_pb2.Status(code=getattr(grpc.StatusCode, code).value[0], message=f"{code} because of {reason}")
    details: list[Any] = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    if reason == "INVALID_SPEC":
        violation = {"field": "spec.containers[0].imagee", "description": "unknown field"}
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata(
        (("grpc-status-details-bin", status.SerializeToString()), ("request_id", "request-1"))
    )
    context.abort(getattr(grpc.StatusCode, code), status.message)


HANDLERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def handlers(broker: Broker) -> grpc.GenericRpcHandler:
    """Finds the method for each call of the contract that the broker answers."""
    service = POOL.FindServiceByName("podbroker.v1.BrokerService")
    made = {}
    for method in service.methods:
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in method.name).lstrip("_")
        answer: Callable[..., Any] | None = getattr(broker, name, None)
        if answer is None:
            continue
        made[method.name] = HANDLERS[method.client_streaming, method.server_streaming](
            answer,
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
    return grpc.method_handlers_generic_handler(service.full_name, made)


def with_tls(folder: Path) -> grpc.ServerCredentials:
    """Reads the certificates."""
    pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
    return grpc.ssl_server_credentials([pair], (folder / "ca.pem").read_bytes(), require_client_auth=True)


def main() -> None:
    """Serves until it is killed."""
    address, *more = sys.argv[1:]
    folder = Path(more[0]) if more and not more[0].isdecimal() else None
    broker = Broker(last=int(more[0]) if more and folder is None else None)
    # A port that another process has must be an error, and not shared with it.
    server = grpc.server(ThreadPoolExecutor(max_workers=64), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handlers(broker),))
    port = server.add_insecure_port(address) if folder is None else server.add_secure_port(address, with_tls(folder))
    print(port, flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
