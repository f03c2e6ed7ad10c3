"""Many triggers in one event loop, as a triggerer runs them: `python -m bench.batch_triggers SPECIFICATION`.

Ours and the peer's are run in the same way: the trigger that the operator defers to is made with the arguments that the
operator gives it, and its first event is waited for. Around them is no scheduler, no supervisor and no database. Says
`ready` when all are under way, and ends with a line of JSON when so many have told an end, or at SIGTERM.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two looks at whether all are under way.
_LOOK: Final = 0.1
#: A report is for a person: so many errors of one kind are enough.
_ERRORS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Specification:
    """What is followed, and how."""

    kind: str
    """A key of `KINDS`."""
    jobs: str
    """A path: a list of `Job` as JSON."""
    ends: int
    """So many ends, and it is over."""
    region: str = ""
    poll: int = 0
    """Seconds, for the peer."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one trigger follows."""

    id: str
    """Of AWS Batch."""
    name: str = ""
    """Of the execution, for ours."""
    claim: str = ""


@dataclass(kw_only=True)
class Report:
    """What was seen."""

    ends: dict[str, int] = field(default_factory=dict)
    """By job: when its end was told, nanoseconds since 1970."""
    errors: list[str] = field(default_factory=list)


def make_ours(job: Job, _: Specification) -> Any:  # noqa: ANN401  a BaseTrigger
    """The trigger of our operator, without lines."""
    from podbroker.airflow.trigger import RemotePodTrigger

    return RemotePodTrigger(
        name=job.name,
        claim=job.claim,
        podbroker_conn_id="podbroker_default",
        pod_name="",
        pod_namespace="",
        lines=None,
        began=time.time(),
        noun="job",
    )


def make_peer(job: Job, specification: Specification) -> Any:  # noqa: ANN401  a BaseTrigger
    """The trigger of the Amazon provider's operator."""
    # It is unpacked for the measurement alone, so that no type checker knows it.
    module = importlib.import_module("airflow.providers.amazon.aws.triggers.batch")
    return module.BatchJobTrigger(
        job_id=job.id,
        region_name=specification.region,
        # The keys are in the environment.
        aws_conn_id=None,
        waiter_delay=specification.poll,
        waiter_max_attempts=4200,
    )


KINDS: Final[dict[str, Callable[[Job, Specification], Any]]] = {"ours": make_ours, "peer": make_peer}


async def run(specification: Specification, jobs: list[Job], say: Callable[[str], None]) -> NoReturn:
    """Runs all of them until so many have told an end."""
    report, enough = Report(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, enough.set)

    async def follow(job: Job, trigger: Any) -> None:  # noqa: ANN401  a BaseTrigger
        try:
            async for event in trigger.run():
                report.ends[job.id] = time.time_ns()
                status = event.payload.get("status")
                if status != "success" and len(report.errors) < _ERRORS:
                    report.errors.append(f"{job.id}: {event.payload}")
                break
        except Exception as error:  # noqa: BLE001  it is reported
            if len(report.errors) < _ERRORS:
                report.errors.append(f"{job.id}: {error!r}")
        if len(report.ends) >= specification.ends:
            enough.set()

    triggers = {job: KINDS[specification.kind](job, specification) for job in jobs}
    # The loop itself keeps no task.
    tasks = [asyncio.create_task(follow(job, trigger)) for job, trigger in triggers.items()]

    def is_begun() -> bool:
        # Of the peer's nothing can be seen from here.
        return all(getattr(trigger, "progress", True) is not None for trigger in triggers.values())

    # No trigger tells that it has begun.
    while not (is_begun() or all(task.done() for task in tasks)):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK)
    say("ready")
    await enough.wait()
    say(json.dumps(dataclasses.asdict(report)))
    # The tasks that are left are in the middle of something, and a triggerer has minutes for them to end.
    os._exit(0)


def main() -> None:
    """Runs what the argument says."""
    # What Airflow logs goes to the errors.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    specification = Specification(**json.loads(sys.argv[1]))
    jobs = [Job(**one) for one in json.loads(Path(specification.jobs).read_text())]
    asyncio.run(run(specification, jobs, lambda text: print(text, file=out, flush=True)))


if __name__ == "__main__":
    main()
