"""The AWS Batch of one row: a double that is nobody else's, so that it can be broken, and brokers that use it."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aws.server import Doubles
from aws.state import State
from cluster.identity import REGION, ROLE
from e2e.aws import Aws
from e2e.batch import QUEUE, Batch
from e2e.waiting import wait_for
from faults.reader import LIMIT
from faults.stage import INSTANCE
from podbroker import BatchWorkload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.broker import Broker, Brokers
    from faults.stage import Stage

#: Seconds after a submit that was not answered until its job is looked for. A third of it is what an answer may take,
#: and other rows run beside this one: a submit that is only slow would be taken for lost, as it would be in production.
SETTLE: Final = 9

_OVER: Final = ("SUCCEEDED", "FAILED")
_DUPLICATES: Final = "podbroker_batch_duplicates_total"


@dataclass(kw_only=True)
class Jobs:
    """AWS Batch, with a queue whose pods are in the row's namespace."""

    stage: Stage
    aws: Aws
    batch: Batch
    told: list[str]
    """Every call that was made, as JSON."""
    table: dict[str, Any] = field(default_factory=dict)
    """Of the target, beside the usual."""
    _brokers: list[Broker] = field(default_factory=list)

    @classmethod
    def of(cls, stage: Stage, **table: Any) -> Jobs:  # noqa: ANN401  keys of the target's table `batch`
        """Starts it, for as long as somebody may have to tidy up."""
        folder = stage.brokers.folder / "aws"
        folder.mkdir()
        told: list[str] = []
        doubles = stage.lasting.enter_context(Doubles(State(folder, say=told.append)))
        aws = Aws(site=stage.site, folder=folder, urls=doubles.urls)
        # What is held would be held for ever.
        stage.lasting.callback(aws.faults)
        batch = Batch(aws=aws, namespace=stage.namespace.name)
        stage.jobs = cls(stage=stage, aws=aws, batch=batch, told=told, table=table)
        return stage.jobs

    # --- brokers and work --------------------------------------------------------------------------------------------

    def broker(self, **settings: Any) -> Broker:  # noqa: ANN401  those of Brokers.prepare
        """A broker that runs, and whose target has the queue."""
        broker = self.prepare(brokers=self.stage.brokers, **settings).start()
        self._brokers.append(broker)
        return broker

    def prepare(self, *, brokers: Brokers, **settings: Any) -> Broker:  # noqa: ANN401  those of Brokers.prepare
        """The same, not started yet, and not asked what it has counted."""
        broker = brokers.prepare(
            namespace=self.stage.namespace,
            instance=INSTANCE,
            target=self.stage.target,
            aws={"credentials": "irsa"},
            **settings,
        )
        (target,) = broker.config["targets"]
        table = {"queue": QUEUE, "settle": f"{SETTLE}s", **self.table}
        target |= {"region": REGION, "role_arn": ROLE, "batch": table}
        broker.environment |= self.aws.environment()
        return broker

    def define(self, script: str, **more: Any) -> BatchWorkload:  # noqa: ANN401  fields of BatchWorkload
        """A job of one container, `main`, with that script."""
        return BatchWorkload(job_definition=self.batch.register(script), **more)

    # --- breaking it -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def failing(self, kind: str, *actions: str, times: int | None = None) -> Iterator[None]:
        """Calls of these kinds, or all of Batch, fail so in the block; see `aws.state.Fault`."""
        faults = [{"service": "batch", "action": one, "kind": kind, "times": times} for one in actions or ("*",)]
        self.aws.faults(*faults)
        try:
            yield
        finally:
            self.aws.faults()

    def await_jobs(self, what: str, *statuses: str, number: int = 1, within: float = LIMIT) -> list[dict[str, Any]]:
        """Waits until so many jobs have such a status, and returns them, oldest first."""

        def found() -> list[dict[str, Any]]:
            jobs = [one for one in self.batch.jobs() if one["status"] in statuses]
            return jobs if len(jobs) >= number else []

        return wait_for(what, found, within=within, every=0.1, about=self.batch.jobs)

    def await_duplicates(self, number: int) -> None:
        """Waits until so many jobs were ended as duplicates, and counted."""
        wait_for(f"{number} duplicates", lambda: self.counted() >= number, within=LIMIT, every=0.1, about=self.counted)

    # --- judging it --------------------------------------------------------------------------------------------------

    def calls(self, action: str, outcome: str | None = None) -> int:
        """How many calls of that kind the double has had, or of those with that outcome."""
        found: dict[str, int] = self.batch.counts()["operations"].get(action, {})
        return sum(count for name, count in found.items() if outcome in (None, name))

    def counted(self) -> int:
        """The duplicates that the row's brokers have counted, each since its last start."""
        return sum(_metric(broker, _DUPLICATES) for broker in self._brokers)

    def made(self) -> int:
        """How many jobs there ever were, duplicates included."""
        return len(self.batch.jobs())

    def left(self) -> int:
        """Jobs that have not ended, and records."""
        listed = self.stage.site.core.list_namespaced_config_map(
            self.stage.namespace.name, label_selector=f"podbroker.io/instance={INSTANCE}"
        )
        return sum(one["status"] not in _OVER for one in self.batch.jobs()) + len(listed.items)

    def problems(self, *, duplicates: int) -> list[str]:
        """What breaks the promise beside lines and ends."""
        found = self.batch.violations()
        jobs = self.batch.jobs()
        names = Counter(one["name"] for one in jobs)
        doubled = sum(names.values()) - len(names)
        wanted = Counter(one["name"] for one in jobs if not one["is_terminated"])
        if doubled != duplicates:
            found.append(f"{doubled} jobs doubled, should be {duplicates}")
        if twice := sum(count - 1 for count in wanted.values() if count > 1):
            found.append(f"{twice} jobs doubled and not ended")
        if (counted := self.counted()) != duplicates:
            found.append(f"{counted} duplicates counted, should be {duplicates}")
        return found

    def show(self) -> str:
        """The calls before the row ended."""
        return "\n--- calls of AWS\n" + "\n".join(self.told[-60:])


def _metric(broker: Broker, name: str) -> int:
    """The value of a counter without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.admin_port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return int(float(value))


def for_seconds(seconds: float) -> None:
    """Lets a fault last: nothing is waited for."""
    time.sleep(seconds)
