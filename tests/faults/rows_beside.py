"""The rows that break a pod, a broker, a connection or a caller; each has a namespace of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import podbroker
from e2e.following import has_line
from e2e.manifests import UNTIL_TOLD, container, numbered, pod, shell
from e2e.proxy import Proxy
from e2e.waiting import wait_for
from faults.row import Length, Row
from faults.stage import SIGNALS, SIGNALS_MOUNT, again_and_again, shifted_clock, until_told

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.broker import Broker
    from e2e.manifests import Manifest
    from faults.stage import Stage

#: About 12 seconds of lines.
SLOW: Final = shell(numbered(400, pause="0.03"))
#: About 90 seconds of lines.
LONG: Final = shell(numbered(900, pause="0.1"))
#: With characters of two, three and four bytes.
MANY_BYTES: Final = shell('i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo "$i grün € 😀 und mehr"; sleep 0.02; done')
#: 400 kB/s for about 30 seconds: the kubelet rotates at half a megabyte, and looks every 3 seconds.
ROTATING: Final = shell(
    "filler=$(head -c 1000 /dev/zero | tr '\\0' x); i=0; "
    "while [ $i -lt 12000 ]; do i=$((i+1)); echo $i $filler; [ $((i % 40)) = 0 ] && sleep 0.1; done"
)
#: As `UNTIL_TOLD`, but not within the second in which it is told: times in a pod have whole seconds, and an end with
#: code 0 in the second of a deletion is believed to be the program's own.
TAKES_TIME: Final = "trap 'sleep 2; echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
WATCHES: Final = r"/pods\?.*watch="
LOGS: Final = r"/log\?"


def waiting(before: str, after: str) -> Manifest:
    """A pod that prints, waits for `tell("go")`, and prints again."""
    script = f"{before}; {until_told('go')}; {after}"
    return pod(container("main", script, volumeMounts=[SIGNALS_MOUNT]), volumes=[SIGNALS])


# --- the broker ------------------------------------------------------------------------------------------------------


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


# --- between broker and API server -----------------------------------------------------------------------------------


def watch_cut(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    with again_and_again(lambda: proxy.cut(WATCHES), every=2):
        stage.start(client, SLOW).to_end()


def log_cut(pattern: bytes, *, least: int) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        proxy = stage.proxy()
        cuts = proxy.cut_behind(LOGS, pattern)
        stage.start(stage.broker(api_server=proxy).client(), MANY_BYTES).to_end()
        stage.remarks.append(f"{len(cuts.texts)} cuts")
        assert len(cuts.texts) >= least, "the stream was hardly ever cut"

    return play


def equal_lines(stage: Stage) -> None:
    proxy = stage.proxy()
    script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); yes same | head -n 50; sleep 0.1; done"
    client = stage.broker(api_server=proxy).client()
    with again_and_again(lambda: proxy.cut(LOGS), every=0.7):
        stage.start(client, shell(script)).to_end()


def refused(status: str, *, seconds: float) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        proxy = stage.proxy()
        reader = stage.start(stage.broker(api_server=proxy).client(), LONG, until="line 50")
        code, _, reason = status.partition(" ")
        answer = proxy.answer("*", "", status=status, body=failure(int(code), reason))
        with again_and_again(proxy.cut, every=2):
            time.sleep(seconds)
        answer.stop()
        reader.to_end()
        stage.remarks.append(f"{answer.done} requests refused")

    return play


def watch_expired(stage: Stage) -> None:
    proxy = stage.proxy()
    reader = stage.start(stage.broker(api_server=proxy).client(), SLOW, until="line 50")
    # As an answer of its own, and within a stream that had begun.
    gone = failure(410, "Expired")
    event = json.dumps({"type": "ERROR", "object": json.loads(gone)}).encode() + b"\n"
    for line, (status, body) in (("line 120", ("410 Gone", gone)), ("line 250", ("200 OK", event))):
        answer = proxy.answer("GET", WATCHES, status=status, body=body)
        proxy.cut(WATCHES)
        wait_for("a watch that is refused", partial(getattr, answer, "done"), within=120)
        answer.stop()
        reader.until(has_line(line))
    reader.to_end()


def failure(code: int, reason: str) -> bytes:
    """A failure as the API server words it."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": f"{reason} (test)"}
    return json.dumps({**status, "reason": reason, "code": code}).encode()


def create_reply_lost(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    lost = proxy.swallow("POST", r"/pods(\?|$)", times=2)
    stage.start(client, SLOW).to_end()
    assert lost.done >= 1, "no reply was lost"


def delete_reply_lost(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    lost = proxy.swallow("DELETE", r"/pods/", times=2)
    reader = stage.start(client, shell("echo one"))
    reader.to_end()
    client.release(reader.name)
    wait_for("a lost reply", lambda: lost.done, within=240)
    wait_for("no pod", lambda: not stage.namespace.pods, within=240, every=0.5)


def ended_unseen(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    answer = proxy.answer("GET", WATCHES, status="503 Service Unavailable", body=failure(503, "ServiceUnavailable"))
    proxy.cut(WATCHES)
    reader = stage.start(client, shell("echo one; echo two"))
    stage.await_phase("Succeeded")
    answer.stop()
    reader.to_end()


# --- the pod ---------------------------------------------------------------------------------------------------------


def pod_deleted(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), shell(TAKES_TIME), until="ready")
    stage.namespace.delete_pod(stage.pod["metadata"]["name"])
    reader.to_end()


def pod_evicted(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), shell(TAKES_TIME), until="ready")
    name = stage.pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    stage.site.core.create_namespaced_pod_eviction(name, stage.namespace.name, body)
    reader.to_end()


def process_killed(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), shell(UNTIL_TOLD), until="ready")
    ctr = stage.site.cluster.facts["ctr"]
    subprocess.run([ctr, "tasks", "kill", "-s", "SIGKILL", stage.container_id], check=True)
    reader.to_end()


def container_restarts(stage: Stage) -> None:
    script = "n=$(cat /signals/n 2>/dev/null || echo 0); echo $((n+1)) >/signals/n; echo run $n; sleep 1; [ $n = 2 ]"
    manifest = pod(
        container("main", script, volumeMounts=[SIGNALS_MOUNT]), volumes=[SIGNALS], restartPolicy="OnFailure"
    )
    stage.start(stage.broker().client(), manifest).to_end()


def init_fails(stage: Stage) -> None:
    manifest = pod(container("main", "echo never"), init=(container("first", "echo no; exit 5"),))
    stage.start(stage.broker().client(), manifest).to_end()


def sidecar_stays(stage: Stage) -> None:
    manifest = pod(container("main", numbered(50)), container("beside", "while :; do echo beside; sleep 0.2; done"))
    policies = podbroker.Policies(deciding_containers=("main",))
    stage.start(stage.broker().client(), manifest, policies=policies).to_end()


def plays(manifest: Manifest) -> Callable[[Stage], None]:
    """Nothing is broken; what the pod prints is the fault."""

    def play(stage: Stage) -> None:
        stage.start(stage.broker().client(), manifest).to_end()

    return play


# --- the node's files ------------------------------------------------------------------------------------------------


def slept_over_rotations(stage: Stage) -> None:
    broker = stage.broker()
    reader = stage.start(broker.client(), ROTATING)
    reader.until(lambda story: len(story.lines.get("main", ())) > 100)
    files = stage.witness.files(stage.namespace.name)
    broker.signal(signal.SIGSTOP)
    wait_for("two rotations", lambda: stage.witness.files(stage.namespace.name) >= files + 2, within=120)
    broker.signal(signal.SIGCONT)
    reader.to_end()


def away_over_rotations(stage: Stage) -> None:
    broker = stage.broker()
    reader = stage.start(broker.client(), ROTATING)
    reader.until(lambda story: len(story.lines.get("main", ())) > 100)
    broker.kill()
    files = stage.witness.files(stage.namespace.name)
    wait_for("two rotations", lambda: stage.witness.files(stage.namespace.name) >= files + 2, within=120)
    broker.start()
    reader.to_end()


def read_over_rotations(stage: Stage) -> None:
    stage.start(stage.broker().client(), ROTATING).to_end()
    stage.remarks.append(f"{stage.witness.files(stage.namespace.name)} files")


def within_a_millisecond(stage: Stage) -> None:
    proxy = stage.proxy()
    cuts = proxy.cut_behind(LOGS, rb"burst \d*(?:250|500) half")
    client = stage.broker(api_server=proxy).client()
    reader = stage.start(client, waiting("echo begin", "echo end"), until="begin")
    now = time.time_ns() // 1_000_000 * 1_000_000
    # Ten to a stamp, all within one millisecond.
    stage.write_behind([(now + number // 10 * 1000, f"burst {number} half and half") for number in range(1, 1000)])
    reader.until(has_line("burst 999 half and half"))
    stage.tell("go")
    reader.to_end()
    stage.remarks.append(f"{len(cuts.texts)} cuts")


def clock_steps_back(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    pauses = numbered(100, prefix="after", pause="0.02")
    reader = stage.start(client, waiting(numbered(100), pauses), until="line 100")
    now = time.time_ns()
    hour = 3_600_000_000_000
    for number in range(10):
        step = range(number * 20, number * 20 + 20)
        stage.write_behind([(now - hour + one * 10_000_000, f"earlier {one}") for one in step])
        reader.until(has_line(f"earlier {step[-1]}"))
        if number % 3 == 2:
            proxy.cut(LOGS)
    stage.tell("go")
    reader.to_end()


# --- the callers -----------------------------------------------------------------------------------------------------


def connection_cut(stage: Stage) -> None:
    broker = stage.broker()
    proxy = stage.closing.enter_context(Proxy(upstream=("127.0.0.1", broker.port)))
    reader = stage.start(stage.client_at(proxy.port), SLOW)
    for number in range(20, 400, 20):
        reader.until(has_line(f"line {number}"))
        proxy.cut()
    reader.to_end()


def connection_silent(stage: Stage) -> None:
    broker = stage.broker()
    proxy = stage.closing.enter_context(Proxy(upstream=("127.0.0.1", broker.port)))
    reader = stage.start(stage.client_at(proxy.port), LONG, until="line 50")
    # No reset and no end, as a firewall that has forgotten the connection.
    proxy.hold()
    time.sleep(40)
    proxy.release()
    reader.to_end()


def stops_reading(stage: Stage) -> None:
    script = "filler=$(head -c 1000 /dev/zero | tr '\\0' x); " + numbered(20000, prefix="$filler")
    client = stage.broker().client()
    name = stage.submit(client, shell(script))
    reader = stage.read(client, name)
    reader.until(lambda story: story.lines)
    reader.pause()
    time.sleep(60)
    reader.go_on()
    reader.to_end()


_OTHER_CALLER: Final = """
import podbroker, sys
with podbroker.Client(sys.argv[1]) as client, client.watch(sys.argv[2]) as watch:
    for event in watch:
        if isinstance(event, podbroker.LogChunk):
            print(len(event.lines), flush=True)
"""


def client_killed(stage: Stage) -> None:
    broker = stage.broker()
    name = stage.submit(broker.client(), SLOW)
    command = [sys.executable, "-c", _OTHER_CALLER, broker.address, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        other.kill()
    # The pod goes on, and the next caller gets everything.
    stage.read(broker.client(), name).to_end()


def client_goes_on(stage: Stage) -> None:
    broker = stage.broker()
    name = stage.submit(broker.client(), SLOW)
    whole = stage.read(broker.client(), name)
    cursor = b""
    pieces: list[Any] = []
    for number in range(50, 400, 50):
        reader = stage.read(broker.client(), name, cursor=cursor)
        reader.until(has_line(f"line {number}"))
        reader.stop()
        cursor = reader.cursor
        pieces += reader.story.events
    last = stage.read(broker.client(), name, cursor=cursor)
    last.to_end()
    # What each of them was told, one after another, must be the whole story.
    last.story.events[:0] = pieces
    whole.to_end()


def two_clients(stage: Stage) -> None:
    brokers = [stage.broker(), stage.broker()]
    clients = [broker.client() for broker in brokers]
    name = stage.submit(clients[0], SLOW)
    stage.submit(clients[1], SLOW)
    for reader in [stage.read(clients[number % 2], name) for number in range(8)]:
        reader.to_end()


def released_by_one(stage: Stage) -> None:
    client = stage.broker().client()
    # More than what is under way to a reader that sleeps.
    name = stage.submit(client, shell(numbered(60000, prefix="a line that is somewhat longer than most of them are")))
    first, second = stage.read(client, name), stage.read(client, name)
    second.until(lambda story: story.lines)
    second.pause()
    first.to_end()
    client.release(name)
    second.go_on()
    second.to_end()


def broker_gone_for_good(stage: Stage) -> None:
    broker = stage.broker()
    client = broker.client()
    name = stage.submit(client, SLOW)
    with client.watch(name, retry_for=5) as watch:
        assert watch.poll(60) is not None
        broker.kill()
        try:
            while watch.poll(60) is not None:
                pass
            stage.remarks.append("no error")
        except podbroker.UnavailableError as error:
            stage.remarks.append(f"UnavailableError, since {'a time' if error.since else 'nobody knows when'}")
    stage.await_phase("Succeeded")
    broker.start()
    stage.read(client, name).to_end()


CORE: Final = Length.CORE

ROWS: Final = (
    Row(fault="kill -9 of the broker, twice", play=broker_killed, length=CORE),
    Row(fault="kill -9 of the broker, ten times", play=broker_killed_ten_times),
    Row(fault="SIGSTOP of the broker for 60 s", play=broker_stopped),
    Row(fault="clock of the broker 90 s ahead", play=clock_off(90)),
    Row(fault="clock of the broker 90 s behind", play=clock_off(-90)),
    Row(fault="rolling restart of two replicas", play=rolling_restart, length=CORE),
    Row(fault="connections that the broker ends every 2 s", play=connections_age, length=CORE),
    Row(fault="replica switched in mid-stream, 15 times", play=replica_switched, length=CORE),
    Row(fault="watch cut every 2 s", play=watch_cut, length=CORE),
    Row(fault="log stream cut every 100 lines", play=log_cut(rb" \d*00 gr[^\n]*\n", least=5)),
    Row(fault="log stream cut in the middle of a line", play=log_cut(rb" \d*[05]0 gr", least=10)),
    Row(
        fault="log stream cut in the middle of a character",
        play=log_cut(rb" \d*25 gr\xc3| \d*50 gr\xc3\xbcn \xe2\x82| \d*75 [^\n]*\xf0\x9f", least=15),
        length=CORE,
    ),
    Row(fault="lines that equal one another, and cuts", play=equal_lines, length=CORE),
    Row(fault="1,000 lines within one millisecond, and cuts", play=within_a_millisecond),
    Row(fault="401 storm of 20 s", play=refused("401 Unauthorized", seconds=20)),
    Row(fault="503 storm of 20 s", play=refused("503 ServiceUnavailable", seconds=20)),
    Row(fault="410 on watch, as an answer and as an event", play=watch_expired, length=CORE),
    Row(fault="create reply lost, twice", play=create_reply_lost, length=CORE),
    Row(fault="delete reply lost, twice", play=delete_reply_lost),
    Row(fault="pod that ends before the watch sees it", play=ended_unseen, length=CORE),
    Row(fault="pod deleted by kubectl", play=pod_deleted, ends="FAILED POD_DELETED", length=CORE),
    Row(fault="eviction", play=pod_evicted, ends="FAILED EVICTED"),
    Row(fault="process killed on the node", play=process_killed, ends="FAILED APPLICATION"),
    Row(fault="container restarts", play=container_restarts),
    Row(fault="init container fails", play=init_fails, ends="FAILED APPLICATION", length=CORE),
    Row(fault="sidecar that never ends", play=sidecar_stays),
    Row(fault="line of 2 MB", play=plays(shell("head -c 2000000 /dev/zero | tr '\\0' x; echo; echo after"))),
    Row(fault="no newline at the end", play=plays(shell("echo one; printf two"))),
    Row(fault="rotations while it is read", play=read_over_rotations),
    Row(fault="rotated twice while the reader sleeps", play=slept_over_rotations),
    Row(fault="rotated twice while no broker runs", play=away_over_rotations),
    Row(fault="clock of the node steps back an hour, and cuts", play=clock_steps_back),
    Row(fault="client connection cut every 20 lines", play=connection_cut),
    Row(fault="client connection silent for 40 s", play=connection_silent),
    Row(fault="client stops reading for 60 s", play=stops_reading),
    Row(fault="client killed", play=client_killed, length=CORE),
    Row(fault="clients that go on with each other's cursor", play=client_goes_on),
    Row(fault="two brokers and eight clients on one execution", play=two_clients),
    Row(fault="release by one of two watchers", play=released_by_one),
    Row(fault="broker gone for longer than the client waits", play=broker_gone_for_good),
)
