"""One task in a process of its own, as a worker would run it: `python -m bench.task SPECIFICATION`.

It imports what every pod task imports, notes its memory, runs one pod to its end, notes the moment and the memory
again, and writes both down as JSON. Both operators are called in the same way: `execute` with the context that they
need, without a scheduler, a supervisor or a database around them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import functools
import importlib
import json
import re
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a pod task has imported before it comes to its own work; the last one is the provider's.
IMPORTS: Final = ("airflow.sdk.execution_time.task_runner", "airflow.providers.cncf.kubernetes.operators.pod")

#: The name of the pods' container.
CONTAINER: Final = "base"


@dataclass(frozen=True, kw_only=True)
class Specification:
    """What to run and where."""

    kind: str
    """A key of `KINDS`."""
    name: str
    script: str
    image: str
    out: str
    """Where the answer goes, a path."""
    address: str = ""
    """The broker's, for our kinds."""
    target: str = ""
    kubeconfig: str = ""
    """The cluster's, for the peer's kinds."""
    namespace: str = ""
    window: float = 600.0
    """Seconds after which nothing is created any more; a pod is not deleted before."""


@dataclass(kw_only=True)
class Answer:
    """What was seen from inside; moments are nanoseconds since 1970."""

    pod: str = ""
    end: int = 0
    """The client was told the end; 0 where there is no such moment."""
    returned: int = 0
    memory_before: dict[str, int] = dataclasses.field(default_factory=dict)
    """Bytes by kind, after the imports."""
    memory_after: dict[str, int] = dataclasses.field(default_factory=dict)


def memory() -> dict[str, int]:
    """The memory of this process in bytes: all that is resident, and the part of it that is no file's."""
    text = Path("/proc/self/smaps_rollup").read_text()
    kilobytes = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return {"resident": kilobytes["Rss"] * 1024, "anonymous": kilobytes["Anonymous"] * 1024}


def make_context() -> Any:  # noqa: ANN401  Airflow's type for it has many more keys
    """The parts of a task's context that the two operators read."""
    now = datetime.datetime.now(datetime.UTC)
    instance = SimpleNamespace(
        id=uuid.uuid4(),
        dag_id="bench",
        task_id="pod",
        run_id=f"bench-{uuid.uuid4()}",
        map_index=-1,
        try_number=1,
        max_tries=0,
        start_date=now,
        is_mapped=False,
        xcom_push=lambda key, value, **_: None,  # noqa: ARG005  the signature of the real one
    )
    return {
        "ti": instance,
        "run_id": instance.run_id,
        "dag": SimpleNamespace(dag_id=instance.dag_id),
        "dag_run": SimpleNamespace(id=1, start_date=now),
        "task_reschedule_count": 0,
    }


def arguments(specification: Specification) -> dict[str, Any]:
    """What both operators are given."""
    return {
        "task_id": "pod",
        "name": specification.name,
        "image": specification.image,
        "cmds": ["sh", "-c"],
        "arguments": [specification.script],
        "base_container_name": CONTAINER,
    }


def run_ours(specification: Specification, answer: Answer) -> None:
    """Runs our operator."""
    from podbroker.airflow import RemotePodOperator, request

    # It is part of the request. Shorter than the operator's ten minutes, so that the deletion falls into the run.
    request.SUBMIT_WINDOW = datetime.timedelta(seconds=specification.window)

    class Watched(RemotePodOperator):
        def cleanup(self, *positional: Any, **named: Any) -> None:  # noqa: ANN401  those of the operator
            # The first thing that the operator does when END has come.
            answer.end = time.time_ns()
            super().cleanup(*positional, **named)

    operator = Watched(**arguments(specification), target=specification.target)
    operator.execute(make_context())
    assert operator.pod is not None
    answer.pod = operator.pod.metadata.name


def run_client(specification: Specification, answer: Answer) -> None:
    """Runs a pod with the Python client alone."""
    import podbroker

    spec = {
        "containers": [
            {"name": CONTAINER, "image": specification.image, "command": ["sh", "-c", specification.script]},
        ]
    }
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=specification.window)
    with podbroker.Client(specification.address) as client:
        submission = client.submit(
            target=specification.target,
            execution_id=specification.name,
            pod={"apiVersion": "v1", "kind": "Pod", "spec": spec},
            submit_before=until,
        )
        name = submission.execution.name
        answer.pod = submission.execution.attempts[0].pod_name
        for event in client.watch(name):
            if isinstance(event, podbroker.End):
                answer.end = time.time_ns()
        client.release(name, claim=submission.claim)


def peer(specification: Specification, **more: Any) -> Any:  # noqa: ANN401  an operator of the provider
    """Makes the provider's operator."""
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    return KubernetesPodOperator(
        **arguments(specification),
        namespace=specification.namespace,
        config_file=specification.kubeconfig,
        in_cluster=False,
        **more,
    )


def run_peer(specification: Specification, answer: Answer) -> None:
    """Runs the provider's operator as it is by default: it waits and shows the lines."""
    operator = peer(specification, get_logs=True)
    operator.execute(make_context())
    answer.pod = operator.pod.metadata.name


def run_peer_without_logs(specification: Specification, answer: Answer) -> None:
    """Runs the provider's operator without lines."""
    operator = peer(specification, get_logs=False)
    operator.execute(make_context())
    answer.pod = operator.pod.metadata.name


def run_peer_deferred(specification: Specification, answer: Answer) -> None:
    """Runs the provider's operator deferrable: its trigger in an event loop, then what it goes on with.

    The way from the trigger over the scheduler back into a worker is left out, so its delay is not comparable.
    """
    from airflow.sdk.exceptions import TaskDeferred

    operator, context = peer(specification, deferrable=True), make_context()
    step: Callable[[], Any] = functools.partial(operator.execute, context)
    while True:
        try:
            step()
        except TaskDeferred as deferred:
            payload = asyncio.run(_first_event(deferred.trigger))
            go_on = getattr(operator, deferred.method_name)
            step = functools.partial(go_on, context, event=payload, **(deferred.kwargs or {}))
        else:
            break
    answer.pod = operator.pod.metadata.name


async def _first_event(trigger: Any) -> Any:  # noqa: ANN401  a trigger and its payload
    async for event in trigger.run():
        return event.payload
    raise RuntimeError("the trigger ended without an event")


KINDS: Final[dict[str, Callable[[Specification, Answer], None]]] = {
    "ours": run_ours,
    "client": run_client,
    "peer": run_peer,
    "peer-without-logs": run_peer_without_logs,
    "peer-deferred": run_peer_deferred,
}


def main() -> None:
    """Runs what the argument says."""
    specification = Specification(**json.loads(sys.argv[1]))
    for module in IMPORTS:
        importlib.import_module(module)
    answer = Answer(memory_before=memory())
    KINDS[specification.kind](specification, answer)
    answer.returned = time.time_ns()
    answer.memory_after = memory()
    Path(specification.out).write_text(json.dumps(dataclasses.asdict(answer)))


if __name__ == "__main__":
    main()
