"""Rows that break a broker, or move callers from one to another."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Final

from e2e.following import has_line
from e2e.manifests import numbered, shell
from e2e.proxy import Proxy
from faults.pods import LONG, SLOW
from faults.row import Length, Row
from faults.stage import shifted_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.broker import Broker
    from faults.stage import Stage


def broker_killed(stage: Stage) -> None:
    broker = stage.broker()
    reader = stage.start(broker.client(), SLOW, until="line 60")
    for line in ("line 120", "line 200"):
        broker.kill()
        broker.start()
        reader.until(has_line(line))
    reader.to_end()


def broker_killed_ten_times(stage: Stage) -> None:
    broker = stage.broker()
    reader = stage.start(broker.client(), shell(numbered(1500, pause="0.02")), until="line 1")
    for number in range(100, 1100, 100):
        reader.until(has_line(f"line {number}"))
        broker.kill()
        broker.start()
    reader.to_end()


def broker_stopped(stage: Stage) -> None:
    broker = stage.broker()
    reader = stage.start(broker.client(), LONG, until="line 50")
    broker.signal(signal.SIGSTOP)
    time.sleep(60)
    broker.signal(signal.SIGCONT)
    reader.to_end()


def clock_off(seconds: int) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        broker = stage.prepare()
        broker.environment |= shifted_clock(broker.folder, seconds)
        reader = stage.start(broker.start().client(), SLOW, until="line 100")
        broker.kill()
        broker.start()
        reader.to_end()

    return play


def rolling_restart(stage: Stage) -> None:
    replicas = [stage.broker(), stage.broker()]
    client = stage.client_at(balanced(stage, *replicas).port)
    readers = [stage.start(client, SLOW, until="line 20"), *(stage.read(client, stage.names[0][1]) for _ in range(3))]
    for number, replica in enumerate(replicas):
        replica.signal(signal.SIGTERM)
        if replica.wait(within=120) != 0:
            stage.remarks.append("a replica did not drain in time")
        replica.start()
        readers[0].until(has_line(f"line {150 * (number + 1)}"))
    for reader in readers:
        reader.to_end()


def balanced(stage: Stage, first: Broker, *others: Broker) -> Proxy:
    """One address for several replicas; connections go to each in turn."""
    places = tuple(("127.0.0.1", one.port) for one in others)
    return stage.closing.enter_context(Proxy(upstream=("127.0.0.1", first.port), others=places))


def connections_age(stage: Stage) -> None:
    limits = {"max_connection_age": "2s", "max_connection_age_grace": "1s"}
    broker = stage.broker(limits=limits)
    client = broker.client()
    reader = stage.start(client, SLOW)
    for number in range(20, 400, 20):
        reader.until(has_line(f"line {number}"))
        # The same execution, whatever connection the call begins on.
        stage.submit(client, SLOW)
    reader.to_end()


def replica_switched(stage: Stage) -> None:
    proxy = balanced(stage, stage.broker(), stage.broker())
    client = stage.client_at(proxy.port)
    reader = stage.start(client, SLOW)
    for number in range(25, 400, 25):
        reader.until(has_line(f"line {number}"))
        proxy.cut()
        # Another replica answers a repeated submit with the same execution.
        stage.submit(client, SLOW)
    reader.to_end()


ROWS: Final = (
    Row(fault="kill -9 of the broker, twice", play=broker_killed, length=Length.CORE),
    Row(fault="kill -9 of the broker, ten times", play=broker_killed_ten_times),
    Row(fault="SIGSTOP of the broker for 60 s", play=broker_stopped),
    Row(fault="clock of the broker 90 s ahead", play=clock_off(90)),
    Row(fault="clock of the broker 90 s behind", play=clock_off(-90)),
    Row(fault="rolling restart of two replicas", play=rolling_restart, length=Length.CORE),
    Row(fault="connections that the broker ends every 2 s", play=connections_age, length=Length.CORE),
    Row(fault="replica switched in mid-stream, 15 times", play=replica_switched, length=Length.CORE),
)
