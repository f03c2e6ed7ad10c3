"""Speaks the contract with the reference implementation of gRPC, for what our own client would never send.

Message classes are made from the descriptor set that is checked in beside the generated code: nothing is compiled.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, json_format, message_factory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from google.protobuf.message import Message

DESCRIPTORS: Final = Path(__file__).resolve().parents[2] / "proto/src/gen/podbroker.v1.binpb"
SERVICE: Final = "podbroker.v1.BrokerService"


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.Add(file)
    return pool


_POOL: Final = _pool()


class Wire:
    """A plain connection to a broker."""

    def __init__(self, port: int, *, token: str | None = None) -> None:
        """Connects without TLS to a port of this machine."""
        # The largest message is the broker's to refuse, not ours.
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._metadata = [("authorization", f"Bearer {token}")] if token is not None else []

    def __enter__(self) -> Self:
        """Is itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection."""
        self._channel.close()

    def call(self, method: str, request: Mapping[str, Any] | bytes, *, timeout: float = 30.0) -> Message:
        """One call; the request is given as JSON, or as bytes that are sent as they are."""
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}", request_serializer=None, response_deserializer=self._reader(method)
        )
        answer: Message = call(self._bytes(method, request), timeout=timeout, metadata=self._metadata)
        return answer

    def stream(self, method: str, request: Mapping[str, Any] | bytes, *, timeout: float = 120.0) -> Iterator[Message]:
        """One call that is answered by a stream."""
        call = self._channel.unary_stream(
            f"/{SERVICE}/{method}", request_serializer=None, response_deserializer=self._reader(method)
        )
        answers: Iterator[Message] = call(self._bytes(method, request), timeout=timeout, metadata=self._metadata)
        return answers

    def _bytes(self, method: str, request: Mapping[str, Any] | bytes) -> bytes:
        if isinstance(request, bytes):
            return request
        message = message_factory.GetMessageClass(self._method(method).input_type)()
        return json_format.ParseDict(dict(request), message).SerializeToString()

    def _reader(self, method: str) -> Any:  # noqa: ANN401  a message class
        return message_factory.GetMessageClass(self._method(method).output_type).FromString

    @staticmethod
    def _method(name: str) -> Any:  # noqa: ANN401  protobuf has no public type for it
        return _POOL.FindServiceByName(SERVICE).FindMethodByName(name)


def reason_of(error: grpc.RpcError) -> str:
    """The reason of google.rpc.ErrorInfo in the trailing metadata; empty when there is none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in _details(value):
                if detail.type_url.endswith("google.rpc.ErrorInfo"):
                    # google.rpc.ErrorInfo: field 1 is the reason, a string.
                    length = detail.value[1]
                    return bytes(detail.value[2 : 2 + length]).decode()
    return ""


def _details(status: bytes) -> list[any_pb2.Any]:
    from google.rpc import status_pb2

    return list(status_pb2.Status.FromString(status).details)
