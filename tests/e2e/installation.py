"""An Airflow, the broker that its tasks run at, and the namespace of their pods, with what is asked about all three."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.airflow import Airflow, Run
from e2e.broker import TARGET, Broker, Brokers
from e2e.waiting import wait_for
from podbroker import ExecutionState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from e2e.site import Namespace, Site
    from podbroker import Client, Execution

#: The DAGs of the end-to-end tests.
DAGS: Final = Path(__file__).with_name("dags")


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What runs together."""

    airflow: Airflow
    broker: Broker
    namespace: Namespace

    @cached_property
    def client(self) -> Client:
        """A client of the broker; it ends with that."""
        return self.broker.client()

    def executions(self, run: Run) -> Sequence[Execution]:
        """What the tasks of a run have started, by their labels."""
        return self.client.list(TARGET, labels={"run_id": run.run}, page_size=1000).executions

    def assert_pod_ended(self, run: Run) -> None:
        """The pod was cancelled, and nothing of it runs."""

        def ended() -> bool:
            return all(one.state.is_final for one in self.executions(run))

        wait_for("the execution to have ended", ended, within=90)
        states = {one.state for one in self.executions(run)}
        assert states == {ExecutionState.CANCELLED}, states
        names = [attempt.pod_name for one in self.executions(run) for attempt in one.attempts]
        assert names
        pods = [pod for pod in map(self.namespace.pod, names) if pod is not None]
        assert all(
            pod["status"]["phase"] in {"Failed", "Succeeded"} or "deletionTimestamp" in pod["metadata"] for pod in pods
        )


@contextlib.contextmanager
def installed(site: Site, folder: Path, *, triggerers: int = 0) -> Iterator[Installation]:
    """All of it in a folder: a namespace for all runs, since Airflow takes long to start and runs have names."""
    with site.namespace() as namespace:
        brokers = Brokers(site=site, folder=folder)
        try:
            broker = brokers.start(namespace=namespace)
            home = folder / "airflow"
            home.mkdir()
            with Airflow(
                folder=home, dags=DAGS, broker=broker.address, target=TARGET, triggerers=triggerers
            ) as airflow:
                yield Installation(airflow=airflow, broker=broker, namespace=namespace)
                for name in airflow.triggerer_names:
                    print(f"--- {name}\n{airflow.log(name)[-3000:]}")
            print(brokers.show())
        finally:
            brokers.close()
