"""The broker that the operator speaks to while upstream's tests run.

A test says what the cluster does by preparing ``PodManager``: what ``await_pod_start`` raises, which pod
``await_pod_completion`` gives back, which text ``extract_xcom`` reads. Upstream's operator calls these by itself; ours
asks a broker. So this broker plays what was prepared: it takes the manifest that was submitted, calls what a test has
prepared, and says in the broker's own words how that went. What the operator makes of it is what is tested.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock

from airflow.providers.cncf.kubernetes.operators import pod
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.providers.cncf.kubernetes.utils import pod_manager
from scripted import (
    attempt,
    container,
    end,
    execution,
    failed,
    result,
    started,
    state,
    succeeded,
)

from podbroker import ExecutionPage, ExecutionState, FailureClass, FinishAction, ResultSource, ServerInfo, Submission
from podbroker.airflow._compat import PodLaunchTimeoutException
from podbroker.exceptions import NotFoundError, PodbrokerError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubernetes.client import models as k8s

    from podbroker import Event, Execution, Outcome

NAMESPACE = "default"
"""The namespace of the target."""


class PlayedBroker:
    """Knows the executions of one task."""

    def __init__(self) -> None:
        """Know none yet."""
        self._plays: dict[str, Play] = {}

    def submit(self, *, execution_id: str, must_exist: bool = False, **kwargs: Any) -> Submission:
        """Start a play, or find it."""
        name = execution(id=execution_id).name
        created = name not in self._plays
        if created:
            if must_exist:
                raise NotFoundError("no such execution", reason="NO_SUCH_EXECUTION")
            play = Play(
                execution_id=execution_id, manifest=kwargs["pod"], policies=kwargs["policies"], labels=kwargs["labels"]
            )
            play.create()
            self._plays[name] = play
        return Submission(execution=self._plays[name].execution, claim="claim", created=created)

    def get(self, name: str, *, full: bool = False) -> Execution:
        """Read an execution, with its pod for ``full``."""
        play = self._play(name)
        return replace(play.execution, pod_json=json.dumps(play.manifest).encode()) if full else play.execution

    def list(self, target: object, **_: Any) -> ExecutionPage:  # noqa: ARG002
        """List all."""
        return ExecutionPage(executions=tuple(play.execution for play in self._plays.values()), next_page_token="")

    def add(self, play: Play) -> str:
        """Know a play that was submitted before the test begins, and give its name."""
        self._plays[play.execution.name] = play
        return play.execution.name

    def watch(self, name: str, **_: Any) -> PlayedWatch:
        """Follow a play."""
        return PlayedWatch(self._play(name))

    def cancel(self, name: str, **_: Any) -> Execution:
        """Delete the pod."""
        play = self._play(name)
        play.manager.delete_pod(play.pod)
        return play.execution

    def release(self, name: str, **_: Any) -> Execution:
        """Do with the pod what the finish policy says."""
        play = self._play(name)
        play.finish()
        return play.execution

    def server_info(self) -> ServerInfo:
        """Say that this broker can do nothing beyond the first version."""
        return ServerInfo(
            version="0",
            instance="played",
            features=(),
            max_request_bytes=0,
            max_manifest_bytes=0,
            caller_subject="c",
            caller_tenant="t",
        )

    def _play(self, name: str) -> Play:
        if name not in self._plays:
            raise NotFoundError("no such execution", reason="NO_SUCH_EXECUTION")
        if (away := self._plays[name].away) is not None:
            raise away
        return self._plays[name]


class Play:
    """One execution, played by what the test has prepared."""

    def __init__(self, *, execution_id: str, manifest: dict[str, Any], policies: Any, labels: Any) -> None:
        """Take what was submitted."""
        self.manifest = manifest
        self.policies = policies
        # By name and now: a test replaces methods of the class, or the class.
        self.manager = pod_manager.PodManager(kube_client=MagicMock())
        self.pod: k8s.V1Pod = PodGenerator.deserialize_model_dict(manifest)
        self.pod.metadata.namespace = self.pod.metadata.namespace or NAMESPACE
        self.remote: Any = None
        self.value: str | None = None
        self.away: PodbrokerError | None = None
        metadata = self.pod.metadata
        self.execution = execution(
            id=execution_id,
            labels=labels,
            attempts=(attempt(pod_name=metadata.name, pod_namespace=metadata.namespace),),
        )

    def create(self) -> None:
        """Make the pod, unless a test has prepared one to be found."""
        find = pod.KubernetesPodOperator.find_pod
        if isinstance(find, Mock):
            # Here upstream looks for what an earlier process left behind; with ours the broker does.
            find(self.pod.metadata.namespace)
        try:
            self.manager.create_pod(pod=self.pod)
        except Exception as error:
            raise RefusedError(str(error), reason="REFUSED") from error

    def events(self) -> Iterator[Event]:
        """Tell what happens, in the order in which it does."""
        kept = {"id": self.execution.execution_id, "attempts": self.execution.attempts, "labels": self.execution.labels}
        yield started()
        if self.remote is not None:
            yield from self._last_events(kept)
            return
        try:
            asyncio.run(self._start())
        except PodLaunchTimeoutException as error:
            yield from self._end(failed(FailureClass.START_DEADLINE, exit_code=None, message=str(error)), kept)
            return
        yield state(ExecutionState.RUNNING, **kept)
        if self.policies.result is ResultSource.SIDECAR:
            self.manager.await_xcom_sidecar_container_start(pod=self.pod)
            self.value = self.manager.extract_xcom(pod=self.pod)
        try:
            self.remote = self.manager.await_pod_completion(self.pod)
        except Exception as error:
            # Upstream's own waiting failed, which says nothing about the pod.
            raise UnavailableError(str(error)) from error
        yield from self._last_events(kept)

    def _last_events(self, kept: dict[str, Any]) -> Iterator[Event]:
        if self.policies.result is ResultSource.SIDECAR:
            known = isinstance(self.value, str)
            yield result(self.value.encode()) if known else result(problem="the file is not there")
        (base,) = self.policies.deciding_containers
        yield from self._end(outcome_of(self.remote, base), kept)

    def finish(self) -> None:
        """Delete the pod if the finish policy says so."""
        finish = self.policies.finish
        good = self.execution.state is ExecutionState.SUCCEEDED
        if finish is FinishAction.DELETE or (finish is FinishAction.DELETE_SUCCEEDED and good):
            self.manager.delete_pod(self.remote)

    async def _start(self) -> None:
        seconds = int(self.policies.start_deadline.total_seconds())
        await self.manager.await_pod_start(
            pod=self.pod, schedule_timeout=seconds, startup_timeout=seconds, check_interval=1
        )

    def _end(self, outcome: Outcome, kept: dict[str, Any]) -> Iterator[Event]:
        yield self.conclude(outcome, **kept)

    def conclude(self, outcome: Outcome, **kept: Any) -> Event:
        """Note how it ended, and give the event that says so."""
        last = end(outcome, **{"id": self.execution.execution_id, "attempts": self.execution.attempts} | kept)
        self.execution = last.execution
        return last


class PlayedWatch:
    """Follows one play."""

    def __init__(self, play: Play) -> None:
        """Begin at its beginning."""
        self._events = play.events()
        self.cursor = b""
        self.ended = False

    def poll(self, timeout: float | None = None) -> Event | None:  # noqa: ARG002 -- a play never waits
        """Give the next event."""
        event = next(self._events, None)
        if event is not None:
            self.cursor = event.cursor
        self.ended = event is None or type(event).__name__ == "End"
        return event

    def wake(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Leave."""
        self._events.close()


def outcome_of(remote: Any, base: str) -> Outcome:
    """Say how the base container ended, where a test says it, and else how the pod did."""
    statuses = remote.status.container_statuses
    found = next((one for one in statuses if one.name == base), None) if isinstance(statuses, list) else None
    terminated = found.state.terminated if found is not None else None
    code = getattr(terminated, "exit_code", None)
    if not isinstance(code, int):
        code = 0 if remote.status.phase == "Succeeded" else None
    message = getattr(terminated, "message", None)
    message = message if isinstance(message, str) else ""
    if code == 0:
        return succeeded(containers=(container(base, message=message),))
    return failed(exit_code=code, containers=(container(base, exit_code=code, message=message),))
