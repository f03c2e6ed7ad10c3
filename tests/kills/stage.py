"""What the rows have in their hands: one Airflow, two brokers, one namespace, and a folder that their pods look at.

The second broker is an installation of its own at the same cluster, for the rows in which it is away.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.airflow import Airflow, connection
from e2e.broker import TARGET, Broker, Brokers
from e2e.manifests import IMAGE, UNTIL_TOLD
from kills.cell import OPENS_LABEL, Kill
from kills.database import postgres
from kills.pods import PodWitness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.site import Namespace, Site
    from kills.cell import Row
    from podbroker import Client, Execution

#: The connections of the DAGs.
USUAL: Final = "podbroker_default"
AWAY: Final = "podbroker_away"

#: As many tasks as there are rows at a time, and those of the broker that is away.
_PARALLELISM: Final = 24

#: Tasks are forked from the scheduler, so what it has imported they need not: half of the work of a task that starts.
_PLUGIN: Final = '"""Imports what all tasks need."""\n\nimport podbroker.airflow.operator\n'


@dataclass(frozen=True, kw_only=True)
class Stage:
    """All of it."""

    airflow: Airflow
    namespace: Namespace
    witness: PodWitness
    signals: Path
    """A folder per DAG run, which its pods see as `/signals/<run>`."""
    away: Broker
    clients: dict[str, Client]

    def connection_of(self, row: Row) -> str:
        """The Airflow connection that a row's task uses."""
        return AWAY if row.kill is Kill.BROKER_AWAY else USUAL

    def executions(self, row: Row) -> list[Execution]:
        """What a row's task has started, oldest first."""
        page = self.clients[self.connection_of(row)].list(TARGET, labels={"run_id": row.name}, page_size=100)
        return sorted(page.executions, key=lambda one: (str(one.create_time), one.name))

    def say(self, row: Row, word: str) -> None:
        """Puts a file into the folder that the row's pods and callbacks look at."""
        (self.signals / row.name / word).touch()

    def open_node(self, row: Row) -> None:
        """Lets the pods of a row be scheduled that wait for that; see `kills/dags/killed.py`."""
        site = self.namespace.site
        container = {"name": "base", "image": IMAGE, "command": ["sh", "-c", UNTIL_TOLD]}
        body = {
            "metadata": {"generateName": "opens-", "labels": {OPENS_LABEL: row.name}},
            "spec": {"containers": [container], "nodeName": site.cluster.facts["node"]},
        }
        site.core.create_namespaced_pod(self.namespace.name, body)


@contextlib.contextmanager
def staged(site: Site, folder: Path) -> Iterator[Stage]:
    """Starts all of it."""
    signals, home = folder / "signals", folder / "airflow"
    signals.mkdir()
    (home / "plugins").mkdir(parents=True)
    (home / "plugins/imported.py").write_text(_PLUGIN)
    with site.namespace(prefix="pb-kills") as namespace, postgres() as database:
        brokers = Brokers(site=site, folder=folder)
        try:
            usual = brokers.start(namespace=namespace, instance="kills")
            away = brokers.start(namespace=namespace, instance="kills-away")
            airflow = Airflow(
                folder=home,
                dags=Path(__file__).with_name("dags"),
                broker=usual.address,
                target=TARGET,
                triggerers=1,
                environment={
                    "AIRFLOW_CONN_PODBROKER_AWAY": connection(away.address, target=TARGET),
                    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
                    # A request to the API server holds one connection while it waits for a second one.
                    "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "50",
                    "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "50",
                    "AIRFLOW__CORE__LAZY_LOAD_PLUGINS": "False",
                    "AIRFLOW__CORE__PARALLELISM": str(_PARALLELISM),
                    "PODBROKER_KILLS_SIGNALS": str(signals),
                },
            )
            with airflow, PodWitness(namespace=namespace) as witness:
                yield Stage(
                    airflow=airflow,
                    namespace=namespace,
                    witness=witness,
                    signals=signals,
                    away=away,
                    clients={USUAL: usual.client(), AWAY: away.client()},
                )
        finally:
            brokers.close()
