"""Makes the pods of jobs, sees how they fare, and takes them away."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import manifest, podstatus
from .cluster import Cluster, ClusterGone, ClusterRefused, rfc3339
from .conditions import is_retried
from .job import Attempt, Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from .behaviour import Behaviour
    from .podstatus import PodStatus
    from .scheduler import Scheduler
    from .timers import Timers

#: Calls to API servers at the same time.
_WORKERS: Final = 16
#: Seconds until a pod is asked for again after nobody answered.
_AGAIN: Final = 0.5

_TIMED_OUT: Final = "Job attempt duration exceeded timeout"
_LOST: Final = "Host EC2 (instance i-0a1b2c3d4e5f60718) terminated."
_DELETED: Final = "Pod was deleted"


@dataclass(eq=False, kw_only=True)
class _Pod:
    """A pod that was made, or is about to be."""

    job: Job
    attempt: int
    namespace: str
    name: str
    cluster: Cluster | None = None
    is_created: bool = False
    is_gated: bool = False
    #: Its end was noticed.
    is_over: bool = False
    #: Of the deletion that was asked for before it was there.
    grace: int | None = None


class Attempts:
    """Shares its owner's lock; calls to API servers are made without it, by threads of their own."""

    def __init__(self, lock: threading.RLock, behaviour: Behaviour, timers: Timers, scheduler: Scheduler) -> None:
        self._lock, self._behaviour, self._timers, self._scheduler = lock, behaviour, timers, scheduler
        self._pods: dict[tuple[str, str], _Pod] = {}
        self._current: dict[str, _Pod] = {}
        self._opening = threading.Lock()
        self._clusters: dict[str, Cluster] = {}
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="batch")
        self._closed = False

    def close(self) -> None:
        """Deletes every pod that is still there, and ends all threads."""
        with self._lock:
            self._closed = True
            pods = list(self._pods.values())
            self._pods.clear()
            self._current.clear()
        # What is being made is finished first, so that its deletion comes after.
        self._workers.shutdown(wait=True)
        with ThreadPoolExecutor(_WORKERS) as workers:
            list(workers.map(partial(_delete, grace=0), pods))
        for cluster in self._clusters.values():
            cluster.close()

    def start(self, job: Job) -> None:
        """Makes the next pod of a job."""
        number, name = len(job.now.attempts) + 1, f"aws-batch.{uuid.uuid4()}"
        attempt = Attempt(number=number, pod_name=name, namespace=manifest.namespace(job))
        job.ending = None
        pod = _Pod(job=job, attempt=number, namespace=attempt.namespace, name=name)
        self._pods[pod.namespace, name] = self._current[job.id] = pod
        self._scheduler.move(job, "STARTING", current=attempt)
        if self._scheduler.is_held(job):
            self._scheduler.hold(job)
            pod.is_gated = True
        self._do(partial(self._create, pod))

    def let_go(self, job: Job) -> None:
        """Takes away what keeps a pod from its node."""
        pod = self._current.get(job.id)
        if pod is not None and pod.is_gated:
            pod.is_gated = False
            if pod.is_created:
                self._do(partial(self._ungate, pod))

    def stop(self, job: Job, ending: tuple[str, str], *, grace: int | None) -> None:
        """Deletes the pod of a job, for a reason that the attempt is told with; the first termination stands."""
        pod = self._current.get(job.id)
        if pod is None or pod.is_over or (job.ending is not None and job.ending[0] == "terminated"):
            return
        job.ending, pod.grace = ending, grace
        if pod.is_created:
            self._do(partial(_delete, pod, grace=grace))

    def lose(self, job: Job, *, reason: str = _LOST, grace: int = 0, attempt: int | None = None) -> None:
        """Takes the pod away as if its node went away; only that of one attempt, if one is given."""
        with self._lock:
            pod = self._current.get(job.id)
            if pod is not None and attempt in (None, pod.attempt):
                self.stop(job, ("lost", reason), grace=grace)

    def finish(self, jobs: list[Job], exit_code: int) -> None:
        """Ends pods of played nodes, which nothing else ends: writes the status that a kubelet would."""
        with ThreadPoolExecutor(_WORKERS) as workers:
            list(workers.map(partial(self._finish, exit_code=exit_code), jobs))

    def _finish(self, job: Job, *, exit_code: int) -> None:
        with self._lock:
            pod = self._current.get(job.id)
        if pod is None or pod.cluster is None or pod.is_over:
            return
        times = {"startedAt": rfc3339(job.entered), "finishedAt": rfc3339(time.time())}
        ended = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", **times}
        statuses = [
            {
                "name": manifest.container_name(one),
                "image": one["image"],
                "imageID": "",
                "ready": False,
                "restartCount": 0,
            }
            | {"state": {"terminated": ended}}
            for one in job.pod["containers"]
        ]
        status = {"phase": "Failed" if exit_code else "Succeeded", "containerStatuses": statuses}
        pod.cluster.patch(pod.namespace, pod.name, {"status": status}, of="/status")

    def _create(self, pod: _Pod) -> None:
        refusal = ""
        try:
            pod.cluster = self._cluster(pod.job)
            pod.cluster.wait_until_watched()
            if pod.job.ending is None and not self._closed:
                self._make(pod, pod.cluster)
                return
        except ClusterGone:
            self._timers.after(_AGAIN, partial(self._do, partial(self._create, pod)))
            return
        except ClusterRefused as refused:
            refusal = str(refused)
        with self._lock:
            if self._pods.pop((pod.namespace, pod.name), None) is not None and not pod.is_over:
                self._over(pod, None, refusal)

    def _make(self, pod: _Pod, cluster: Cluster) -> None:
        is_held = pod.is_gated
        node = cluster.node(pod.job.environment.facts.get("nodes"))
        cluster.create(manifest.pod(pod.job, name=pod.name, attempt=pod.attempt, node=node, is_held=is_held))
        with self._lock:
            pod.is_created = True
            # What was asked for meanwhile.
            if pod.job.ending is not None:
                self._do(partial(_delete, pod, grace=pod.grace))
            elif is_held and not pod.is_gated:
                self._do(partial(self._ungate, pod))

    def _ungate(self, pod: _Pod) -> None:
        assert pod.cluster is not None
        try:
            pod.cluster.patch(pod.namespace, pod.name, {"spec": {"schedulingGates": None}})
        except ClusterGone:
            self._timers.after(_AGAIN, partial(self._do, partial(self._ungate, pod)))

    def _seen(self, cluster: Cluster, found: dict[str, Any], is_gone: bool) -> None:
        """How a pod is now."""
        key = (found["metadata"]["namespace"], found["metadata"]["name"])
        with self._lock:
            pod = self._pods.get(key)
            if pod is None or pod.cluster is not cluster:
                return
            if is_gone:
                del self._pods[key]
            if not pod.is_over:
                self._follow(pod, podstatus.read(found), is_gone=is_gone)

    def _follow(self, pod: _Pod, status: PodStatus, *, is_gone: bool) -> None:
        job, known = pod.job, pod.job.now.current
        assert known is not None
        attempt = replace(
            known,
            node=status.node or known.node,
            containers=status.containers or known.containers,
            init_containers=status.init_containers or known.init_containers,
        )
        if job.now.status == "STARTING" and status.started is not None:
            attempt = replace(attempt, started=time.time())
            self._scheduler.move(job, "RUNNING", current=attempt, started=attempt.started)
            self._runs(pod)
        elif attempt != known:
            job.change(time.time(), current=attempt)
        if status.has_ended or is_gone:
            self._over(pod, status, "" if status.has_ended else _DELETED)

    def _runs(self, pod: _Pod) -> None:
        """Sets what is to happen to a job that runs."""
        job = pod.job
        if job.timeout is not None:
            seconds = job.timeout * self._behaviour.of(job, "timeout_factor")
            self._timers.after(seconds, partial(self._time_out, pod))
        loss = self._behaviour.of(job, "spot_loss")
        if loss is not None and pod.attempt in loss.get("attempts", [1]):
            more = {key: loss[key] for key in ("reason", "grace") if key in loss}
            self._timers.after(loss.get("after", 0.0), partial(self.lose, job, attempt=pod.attempt, **more))

    def _time_out(self, pod: _Pod) -> None:
        with self._lock:
            if pod is self._current.get(pod.job.id) and pod.job.ending is None:
                self.stop(pod.job, ("timeout", _TIMED_OUT), grace=None)

    def _over(self, pod: _Pod, status: PodStatus | None, reason: str) -> None:
        """An attempt has ended; decides what follows."""
        job, pod.is_over = pod.job, True
        del self._current[job.id]
        kind, words = job.ending or ("", "")
        assert job.now.current is not None
        attempt = replace(
            job.now.current, stopped=time.time(), reason=words or reason or (status.reason if status else "")
        )
        succeeded = status is not None and status.phase == "Succeeded" and kind not in ("terminated", "timeout")
        attempts, stopped = (*job.now.attempts, attempt), attempt.stopped
        if succeeded:
            attempt = replace(attempt, reason="")
            attempts = (*job.now.attempts, attempt)
            self._scheduler.move(job, "SUCCEEDED", current=attempt, attempts=attempts, stopped=stopped)
        elif kind not in ("terminated", "timeout") and is_retried(job.strategy, attempt):
            self._scheduler.move(job, "RUNNABLE", current=None, attempts=attempts, started=None)
        else:
            more = {"current": attempt, "attempts": attempts, "stopped": stopped}
            self._scheduler.move(job, "FAILED", reason=attempt.reason, **more)
        self._clear(pod)
        self._scheduler.leave_room(job)
        self._scheduler.advance(job)

    def _clear(self, pod: _Pod) -> None:
        """Has the pod deleted, soon."""
        after = self._behaviour.of(pod.job, "delete_after")
        if (pod.namespace, pod.name) not in self._pods or after is None:
            return
        delete = partial(_delete, pod, grace=None)
        if after == 0:
            self._do(delete)
        else:
            self._timers.after(after, partial(self._do, delete))

    def _cluster(self, job: Job) -> Cluster:
        """The cluster of a job's compute environment; its kubeconfig is a path, or what stands in one."""
        given = job.environment.facts["kubeconfig"]
        kubeconfig = json.loads(Path(given).read_text()) if isinstance(given, str) else given
        key = json.dumps(kubeconfig)
        with self._opening:
            if key not in self._clusters:
                self._clusters[key] = Cluster(kubeconfig, self._seen)
            return self._clusters[key]

    def _do(self, action: Callable[[], None]) -> None:
        """Has a worker do it; what is asked for while all ends is not done."""
        with contextlib.suppress(RuntimeError):
            self._workers.submit(_run, action)


def _run(action: Callable[[], None]) -> None:
    """A worker keeps an exception to itself."""
    try:
        action()
    except Exception:
        traceback.print_exc()
        raise


def _delete(pod: _Pod, *, grace: int | None) -> None:
    if pod.cluster is not None:
        # Tried for a while: an API server that restarts must not leave a pod to run for ever.
        for _ in range(60):
            try:
                pod.cluster.delete(pod.namespace, pod.name, grace=grace)
            except ClusterGone:
                time.sleep(_AGAIN)
            else:
                return
