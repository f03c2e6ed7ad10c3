"""The client of a broker.

What a call does is the native module's business, which in turn leaves trying again, TLS and resuming to the Rust
client. This module gives it the shape that Python expects: a method and its twin for asyncio, documented and typed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from podbroker import _core
from podbroker.watch import Checks, Watch

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from podbroker.batch import BatchWorkload
    from podbroker.execution import Execution, ExecutionPage, ExecutionState, Group, Policies, Submission
    from podbroker.target import ServerInfo, Target, TargetPlace
    from podbroker.watch_many import WatchMany

__all__ = ["Client"]


class Client:
    """Speaks to one broker.

    It connects at the first call. Clients with the same settings share their connections within a process, and a
    client that was made before a fork works on in the child. Every method may be called from any thread; a blocking
    one releases the interpreter and lets Python signal handlers run. Each call raises a ``PodbrokerError`` when the
    broker could not do its part.
    """

    __slots__ = ("_address", "_core")

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        client_certificate_file: str | os.PathLike[str] | None = None,
        client_key_file: str | os.PathLike[str] | None = None,
        server_name: str | None = None,
        connect_timeout: float = 10.0,
        call_timeout: float = 30.0,
        retry_for: float = 120.0,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            address: ``http://host:port``, ``https://host:port`` or ``unix:/path``.
            token: The bearer token that says who the caller is. It is never shown.
            token_file: A file that holds the token, read again when it changes. Not together with ``token``.
            ca_file: PEM certificates that the broker's certificate must lead to. None: those of this machine.
            client_certificate_file: A PEM certificate that says who the caller is. Needs ``client_key_file``.
            client_key_file: Its private key, PEM.
            server_name: The name in the broker's certificate, where it is not the host of the address.
            connect_timeout: Seconds that a connection may take to come about.
            call_timeout: Seconds that one try of a call may take.
            retry_for: Seconds during which a call that may succeed later is tried again, counted from its first try.

        """
        self._address = address
        self._core = _core.Client(
            address=address,
            token=token,
            token_file=token_file,
            ca_file=ca_file,
            client_certificate_file=client_certificate_file,
            client_key_file=client_key_file,
            server_name=server_name,
            connect_timeout=connect_timeout,
            call_timeout=call_timeout,
            retry_for=retry_for,
        )

    @property
    def address(self) -> str:
        """Where the broker is."""
        return self._address

    def __repr__(self) -> str:
        """Show the address and no credential."""
        return f"Client({self._address!r})"

    def close(self) -> None:
        """Give the connections back; they end when no other client shares them. A later call connects again."""
        self._core.close()

    def __enter__(self) -> Self:
        """Use the client in a ``with`` block, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Use the client in an ``async with`` block, which closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def submit(
        self,
        *,
        target: str | TargetPlace,
        execution_id: str,
        pod: Mapping[str, Any] | str | bytes | None = None,
        batch: BatchWorkload | None = None,
        job: Mapping[str, Any] | str | bytes | None = None,
        submit_before: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        policies: Policies | None = None,
        group: Group | None = None,
        required_features: Iterable[str] = (),
        validate_only: bool = False,
        must_exist: bool = False,
    ) -> Submission:
        """Start an execution, exactly once.

        Args:
            target: Where to run it: a target's name, or its parts.
            execution_id: The caller's name for it, 1 to 200 characters. The same request with the same id answers with
                the same execution, however often it is sent.
            pod: A Kubernetes Pod manifest, as a mapping or as JSON text, at most 256 KiB.
            batch: An AWS Batch job, in the place of ``pod``; for brokers with the feature ``batch``.
            job: A Kubernetes Job manifest (``batch/v1``), in the place of ``pod``; for targets that run Jobs, of
                brokers with the feature ``job``.
            submit_before: Nothing is created after this moment; with a time zone, at most 24 h ahead. Fix it once if
                the request may be repeated by another process. None: 10 minutes from now.
            labels: The caller's own labels, for ``list``; at most 16.
            policies: How to run it. None: the target's defaults.
            group: The group that it belongs to. The answer may then be an execution of the group under another id: go
                on with its name, and give the claim to ``cancel`` and ``release``.
            required_features: Features that the request relies on; one that the broker does not have is refused.
            validate_only: Check the request against the cluster and create nothing.
            must_exist: Create nothing: answer with the execution if it exists.

        Raises:
            ValueError: None of ``pod``, ``batch`` and ``job`` is given, or several are.

        """
        return self._submit(
            target=target,
            execution_id=execution_id,
            pod=pod,
            batch=batch,
            job=job,
            submit_before=submit_before,
            labels=labels,
            policies=policies,
            group=group,
            required_features=required_features,
            validate_only=validate_only,
            must_exist=must_exist,
        ).wait()

    async def submit_async(
        self,
        *,
        target: str | TargetPlace,
        execution_id: str,
        pod: Mapping[str, Any] | str | bytes | None = None,
        batch: BatchWorkload | None = None,
        job: Mapping[str, Any] | str | bytes | None = None,
        submit_before: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        policies: Policies | None = None,
        group: Group | None = None,
        required_features: Iterable[str] = (),
        validate_only: bool = False,
        must_exist: bool = False,
    ) -> Submission:
        """Do what ``submit`` does, for asyncio."""
        return await self._submit(
            target=target,
            execution_id=execution_id,
            pod=pod,
            batch=batch,
            job=job,
            submit_before=submit_before,
            labels=labels,
            policies=policies,
            group=group,
            required_features=required_features,
            validate_only=validate_only,
            must_exist=must_exist,
        )

    def _submit(
        self,
        *,
        target: str | TargetPlace,
        execution_id: str,
        pod: Mapping[str, Any] | str | bytes | None,
        batch: BatchWorkload | None,
        job: Mapping[str, Any] | str | bytes | None,
        submit_before: datetime | None,
        labels: Mapping[str, str] | None,
        policies: Policies | None,
        group: Group | None,
        required_features: Iterable[str],
        validate_only: bool,
        must_exist: bool,
    ) -> _core.Call[Submission]:
        return self._core.submit(
            target=target,
            execution_id=execution_id,
            pod=None if pod is None else _manifest(pod),
            batch=batch,
            job=None if job is None else _manifest(job),
            submit_before=submit_before,
            labels=dict(labels or {}),
            policies=policies,
            group=group,
            required_features=list(required_features),
            validate_only=validate_only,
            must_exist=must_exist,
        )

    def get(self, name: str, *, full: bool = False) -> Execution:
        """Read one execution; with ``full`` also its pod, which costs one request to the cluster."""
        return self._core.get(name=name, full=full).wait()

    async def get_async(self, name: str, *, full: bool = False) -> Execution:
        """Do what ``get`` does, for asyncio."""
        return await self._core.get(name=name, full=full)

    def list(
        self,
        target: str | TargetPlace,
        *,
        labels: Mapping[str, str] | None = None,
        states: Iterable[ExecutionState] = (),
        page_size: int = 100,
        page_token: str = "",
    ) -> ExecutionPage:
        """Read one page of the caller's executions at a target, in the order of their names.

        Args:
            target: Where: a target's name, or its parts.
            labels: Only those that have all these labels.
            states: Only those in one of these states. Empty: any.
            page_size: 1 to 1,000.
            page_token: ``next_page_token`` of the page before.

        """
        return self._list(target, labels, states, page_size, page_token).wait()

    async def list_async(
        self,
        target: str | TargetPlace,
        *,
        labels: Mapping[str, str] | None = None,
        states: Iterable[ExecutionState] = (),
        page_size: int = 100,
        page_token: str = "",
    ) -> ExecutionPage:
        """Do what ``list`` does, for asyncio."""
        return await self._list(target, labels, states, page_size, page_token)

    def _list(
        self,
        target: str | TargetPlace,
        labels: Mapping[str, str] | None,
        states: Iterable[ExecutionState],
        page_size: int,
        page_token: str,
    ) -> _core.Call[ExecutionPage]:
        return self._core.page(
            target=target, labels=dict(labels or {}), states=[*states], page_size=page_size, page_token=page_token
        )

    def cancel(self, name: str, *, claim: str = "", reason: str = "", grace: timedelta | None = None) -> Execution:
        """Ask for the end of an execution; answers at once with the execution as it is.

        Args:
            name: ``Execution.name``.
            claim: Of the submission; empty: whoever holds it.
            reason: Why, for the outcome's message. At most 1,024 bytes.
            grace: How long the containers have after SIGTERM, whole seconds, up to 1 h. None: as the manifest says.

        """
        return self._core.cancel(name=name, claim=claim, reason=reason, grace=grace).wait()

    async def cancel_async(
        self, name: str, *, claim: str = "", reason: str = "", grace: timedelta | None = None
    ) -> Execution:
        """Do what ``cancel`` does, for asyncio."""
        return await self._core.cancel(name=name, claim=claim, reason=reason, grace=grace)

    def release(self, name: str, *, claim: str = "") -> Execution:
        """Say that the caller has all that it wants: the finish policy applies now."""
        return self._core.release(name=name, claim=claim).wait()

    async def release_async(self, name: str, *, claim: str = "") -> Execution:
        """Do what ``release`` does, for asyncio."""
        return await self._core.release(name=name, claim=claim)

    def targets(self) -> tuple[Target, ...]:
        """List the targets that the caller may use, in the order of their names."""
        return self._core.targets().wait()

    async def targets_async(self) -> tuple[Target, ...]:
        """Do what ``targets`` does, for asyncio."""
        return await self._core.targets()

    def server_info(self) -> ServerInfo:
        """Ask the broker what it is and can do."""
        return self._core.server_info().wait()

    async def server_info_async(self) -> ServerInfo:
        """Do what ``server_info`` does, for asyncio."""
        return await self._core.server_info()

    def check(self, target: str | TargetPlace) -> Checks:
        """Walk the chain from the caller to a running pod at a target; for ``for`` and ``async for``.

        A broken link is an item and not an exception. Creates nothing.
        """
        return Checks(self._core.check(target=target))

    def watch(
        self,
        name: str,
        *,
        cursor: bytes = b"",
        logs: bool = True,
        containers: Iterable[str] = (),
        tail_lines: int = 0,
        since: datetime | None = None,
        follow: bool = True,
        retry_for: float | None = None,
    ) -> Watch:
        """Follow one execution: the current state first, then everything after the cursor, ``End`` last.

        When the connection breaks it goes on by itself after the last event. Dropping it is not a cancel.

        Args:
            name: ``Execution.name``.
            cursor: Continue after this event. Empty: from the beginning.
            logs: Whether to send lines.
            containers: Lines of these containers only. Empty: of all.
            tail_lines: Start with the last so many lines of each container instance; ignored with a cursor. 0: all.
            since: Start with lines of this moment or later, with a time zone; ignored with a cursor.
            follow: False: end, without ``End``, once the current state and the lines so far were sent.
            retry_for: Seconds without contact after which UnavailableError is raised. None: never.

        """
        return Watch(
            self._core.watch(
                name=name,
                cursor=cursor,
                logs=logs,
                containers=list(containers),
                tail_lines=tail_lines,
                since=since,
                follow=follow,
                retry_for=retry_for,
            )
        )

    def watch_many(self, *, retry_for: float | None = None) -> WatchMany:
        """Follow many executions over one stream, from one event loop.

        Args:
            retry_for: Seconds without contact after which whoever follows gets UnavailableError. None: never.

        """
        # A process that follows one execution needs no asyncio, and importing it takes longer than all of this package.
        from podbroker.watch_many import WatchMany

        return WatchMany(lambda: self._core.watch_many(retry_for=retry_for), self.watch)


def _manifest(pod: Mapping[str, Any] | str | bytes) -> bytes:
    if isinstance(pod, bytes):
        return pod
    text = pod if isinstance(pod, str) else json.dumps(dict(pod), allow_nan=False, separators=(",", ":"))
    return text.encode()
