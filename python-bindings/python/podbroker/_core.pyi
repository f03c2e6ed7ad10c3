# The native module, checked against the real one by mypy.stubtest. Private: `client`, `watch` and `watch_many` are its
# only users.

import asyncio
import os
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, final

from podbroker.batch import BatchWorkload
from podbroker.event import Event
from podbroker.exceptions import PodbrokerError
from podbroker.execution import Execution, ExecutionPage, ExecutionState, Group, Policies, Submission
from podbroker.target import Check, ServerInfo, Target, TargetPlace

__all__ = ["Call", "Checks", "Client", "Watch", "WatchMany", "__version__"]

__version__: str

_T_co = TypeVar("_T_co", covariant=True)

@final
class Call(Generic[_T_co]):
    def wait(self) -> _T_co: ...
    def __await__(self) -> Generator[Any, None, _T_co]: ...

@final
class Client:
    def __new__(
        cls,
        *,
        address: str,
        token: str | None,
        token_file: str | os.PathLike[str] | None,
        ca_file: str | os.PathLike[str] | None,
        client_certificate_file: str | os.PathLike[str] | None,
        client_key_file: str | os.PathLike[str] | None,
        server_name: str | None,
        connect_timeout: float,
        call_timeout: float,
        retry_for: float,
    ) -> Client: ...
    def close(self) -> None: ...
    def submit(
        self,
        *,
        target: str | TargetPlace,
        execution_id: str,
        pod: bytes | None,
        batch: BatchWorkload | None,
        job: bytes | None,
        submit_before: datetime | None,
        labels: dict[str, str],
        policies: Policies | None,
        group: Group | None,
        required_features: list[str],
        validate_only: bool,
        must_exist: bool,
    ) -> Call[Submission]: ...
    def get(self, *, name: str, full: bool) -> Call[Execution]: ...
    def page(
        self,
        *,
        target: str | TargetPlace,
        labels: dict[str, str],
        states: list[ExecutionState],
        page_size: int,
        page_token: str,
    ) -> Call[ExecutionPage]: ...
    def cancel(self, *, name: str, claim: str, reason: str, grace: timedelta | None) -> Call[Execution]: ...
    def release(self, *, name: str, claim: str) -> Call[Execution]: ...
    def targets(self) -> Call[tuple[Target, ...]]: ...
    def server_info(self) -> Call[ServerInfo]: ...
    def check(self, *, target: str | TargetPlace) -> Checks: ...
    def watch(
        self,
        *,
        name: str,
        cursor: bytes,
        logs: bool,
        containers: list[str],
        tail_lines: int,
        since: datetime | None,
        follow: bool,
        retry_for: float | None,
    ) -> Watch: ...
    def watch_many(self, *, retry_for: float | None) -> WatchMany: ...

@final
class Watch:
    @property
    def ended(self) -> bool: ...
    @property
    def cursor(self) -> bytes: ...
    def poll(self, *, timeout: float | None) -> Event | None: ...
    def next(self) -> Event | None: ...
    def ready(self) -> asyncio.Future[None]: ...
    def take(self) -> Event | None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...

@final
class WatchMany:
    def add(self, *, name: str, cursor: bytes, logs: bool, containers: list[str]) -> None: ...
    def remove(self, *, name: str) -> None: ...
    def ready(self) -> asyncio.Future[None]: ...
    def take(self) -> list[tuple[str, Event | PodbrokerError]]: ...
    def close(self) -> None: ...

@final
class Checks:
    def next(self) -> Call[Check | None]: ...
