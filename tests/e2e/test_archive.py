"""The archive: what pods leave behind outlives them, in a folder and in S3, over restarts, replicas and outages."""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import json
import secrets
import signal
from typing import TYPE_CHECKING, Final

import pytest
from google.protobuf import json_format

import podbroker
from e2e.archiving import (
    LINES,
    LONG,
    SLOW,
    SLOW_LINES,
    WORDS,
    archived,
    gone,
    prepared,
    released,
    run,
    soon,
)
from e2e.broker import TARGET
from e2e.following import Story, collect, follow, has_line
from e2e.manifests import numbered, shell
from e2e.stores import SECRET
from e2e.waiting import wait_for
from e2e.wire import Wire
from podbroker import ExecutionState, Policies, ResultSource

if TYPE_CHECKING:
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace
    from e2e.stores import Bucket, Folder, Store
    from podbroker import Client

#: A replica that was killed is taken for dead within two minutes.
TAKEN_OVER: Final = 300.0
VALUE: Final = b'{"rows": 42}'


def test_all_of_a_pod_that_was_deleted_right_after_its_end_is_told_after_a_restart(
    namespace: Namespace, brokers: Brokers, store: Store
) -> None:
    broker = prepared(brokers, namespace, store).start()
    client = broker.client()
    assert "archive" in client.server_info().features
    script = f"{numbered(60, pause='0.02')}; echo '{VALUE.decode()}' > /airflow/xcom/return.json; exit 3"
    policies = Policies(result=ResultSource.SIDECAR)
    name = client.submit(
        target=TARGET, execution_id="kept", pod=shell(script), policies=policies, submit_before=soon()
    ).execution.name
    live = Story()
    with client.watch(name) as watch:
        collect(watch, live, has_line("line 60"), within=LONG)
        wait_for("the end", lambda: client.get(name).outcome, within=LONG, every=0.01)
        # As somebody with kubectl does; the finalizer keeps the object and nothing keeps the logs.
        namespace.delete_pod(str(namespace.only_pod["metadata"]["name"]))
        collect(watch, live, lambda story: isinstance(story.events[-1], podbroker.End), within=LONG)
    archived(store)
    gone(client, namespace, name)
    broker.kill()
    broker.start()
    client = broker.client()

    story = follow(client, name)
    assert story.text() == live.text() == LINES[:60]
    assert not story.gaps
    assert story.outcome.exit_code == 3
    assert story.outcome == live.outcome
    assert story.result is not None
    assert story.result.content.strip() == VALUE
    assert client.get(name).state is ExecutionState.FAILED
    # Wherever the live watch could have been left, it goes on as if nothing had happened.
    for at in range(0, len(live.events) - 1, max(1, len(live.events) // 12)):
        rest = follow(client, name, cursor=live.events[at].cursor)
        had = Story(events=live.events[: at + 1])
        assert had.text() + rest.text() == live.text()
        assert (had.result or rest.result) is not None
        assert not (had.result and rest.result)
        assert not rest.gaps
    # Lines are in segments only, those are gzip, and no secret is anywhere.
    objects = store.objects()
    segments = b"".join(gzip.decompress(content) for path, content in objects.items() if path.endswith(".gz"))
    assert segments.count(b"line ") == 60
    assert not any(SECRET.encode() in content for content in objects.values())
    assert SECRET not in broker.log


def test_a_cursor_of_a_live_watch_goes_on_in_the_archive(
    namespace: Namespace, brokers: Brokers, folder: Folder
) -> None:
    client = prepared(brokers, namespace, folder).start().client()
    name = run(client, "cursor", SLOW)
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("line 100"), within=LONG)
        cursor = watch.cursor
    archived(folder)
    gone(client, namespace, name)

    rest = follow(client, name, cursor=cursor)
    assert story.text() + rest.text() == SLOW_LINES
    assert not rest.gaps
    tail = list(client.watch(name, tail_lines=5))
    assert Story(events=tail).text() == SLOW_LINES[-5:]


def test_no_pod_is_deleted_before_it_is_archived(namespace: Namespace, brokers: Brokers, folder: Folder) -> None:
    broker = prepared(brokers, namespace, folder).start()
    client = broker.client()
    # A file where the folder of executions should be: nothing can be written there.
    (folder.path / "e2e/executions").write_text("in the way")
    name = run(client, "stuck", WORDS)
    assert follow(client, name).outcome.exit_code == 3
    client.release(name)
    wait_for("the attempts to write", lambda: "the archive cannot be used" in broker.log, within=LONG)
    assert len(namespace.pods) == 1
    (folder.path / "e2e/executions").unlink()
    wait_for("the pod to be deleted", lambda: not namespace.pods, within=LONG)
    assert [it["state"] for it in folder.outcomes()] == ["FAILED"]
    assert follow(client, name).text() == LINES


def test_a_bucket_that_is_away_for_a_while_keeps_nobody_from_anything_but_deletions(
    namespace: Namespace, brokers: Brokers, bucket: Bucket
) -> None:
    broker = prepared(brokers, namespace, bucket, flush="1s").start()
    client = broker.client()
    first = run(client, "first", SLOW)
    wait_for("a segment", lambda: any(path.endswith(".gz") for path in bucket.objects()), within=LONG)
    bucket.proxy.refuse()
    story = follow(client, first)
    assert story.text() == SLOW_LINES
    assert not story.gaps
    # What is new is not kept waiting either.
    second = run(client, "second", WORDS)
    assert follow(client, second).outcome.exit_code == 3
    for name in (first, second):
        client.release(name)
    wait_for("the attempts to write", lambda: "the archive cannot be used" in broker.log, within=LONG)
    # Nobody can say whether there is a third; that is not the same as no.
    with pytest.raises(podbroker.UnavailableError) as unavailable:
        broker.client(retry_for=1).get(f"{first}-other")
    assert unavailable.value.reason == "ARCHIVE_UNAVAILABLE"
    assert len(namespace.pods) == 2
    assert not bucket.outcomes()
    bucket.proxy.allow()
    wait_for("the pods to be deleted", lambda: not namespace.pods, within=LONG)
    for name, lines in ((first, SLOW_LINES), (second, LINES)):
        story = follow(client, name)
        assert story.text() == lines
        assert not story.gaps
    assert SECRET not in broker.log


def test_a_broker_starts_while_the_bucket_is_away(namespace: Namespace, brokers: Brokers, bucket: Bucket) -> None:
    bucket.proxy.refuse()
    broker = prepared(brokers, namespace, bucket).start()
    client = broker.client()
    name = run(client, "early", WORDS)
    assert follow(client, name).text() == LINES
    bucket.proxy.allow()
    archived(bucket)
    gone(client, namespace, name)
    assert follow(client, name).text() == LINES


def test_another_replica_finishes_what_a_killed_one_has_begun(
    namespace: Namespace, brokers: Brokers, folder: Folder
) -> None:
    first = prepared(brokers, namespace, folder, flush="1s").start()
    name = run(first.client(), "taken", SLOW)
    wait_for("a segment", lambda: list(folder.path.rglob("*.gz")), within=LONG)
    second = prepared(brokers, namespace, folder, flush="1s").start()
    first.kill()
    archived(folder, within=TAKEN_OVER)
    client = second.client()
    released(client, name, namespace)
    claims = [path for path in folder.objects() if path.endswith("/claim.json")]
    assert len(claims) == 2, "each writer has a generation"

    story = follow(client, name)
    assert story.text() == SLOW_LINES
    assert not story.gaps
    assert story.outcome.state is ExecutionState.SUCCEEDED


def test_a_broker_that_was_killed_in_mid_run_goes_on_with_what_it_had(
    namespace: Namespace, brokers: Brokers, bucket: Bucket
) -> None:
    broker = prepared(brokers, namespace, bucket, flush="1s").start()
    name = run(broker.client(), "killed", SLOW)
    wait_for("a segment", lambda: any(path.endswith(".gz") for path in bucket.objects()), within=LONG)
    broker.kill()
    broker.start()
    client = broker.client()
    archived(bucket, within=TAKEN_OVER)
    gone(client, namespace, name)
    story = follow(client, name)
    assert story.text() == SLOW_LINES
    assert not story.gaps


def test_two_replicas_archive_each_execution_once_and_a_drained_one_hands_over(
    namespace: Namespace, brokers: Brokers, folder: Folder
) -> None:
    first, second = (prepared(brokers, namespace, folder).start() for _ in range(2))
    names = [run(first.client(), f"both-{n}", SLOW) for n in range(3)]

    def claims() -> int:
        return sum(path.endswith("/claim.json") for path in folder.objects())

    wait_for("the claims", lambda: claims() == 3, within=LONG)
    for name in names:
        assert has_line("line 50")(follow_some(first.client(), name))
    assert claims() == 3
    first.signal(signal.SIGTERM)
    assert first.wait(within=LONG) == 0
    archived(folder, count=3)
    for name in names:
        story = follow(second.client(), name)
        assert story.text() == SLOW_LINES
    gone(second.client(), namespace, *names)
    for name in names:
        story = follow(second.client(), name)
        assert story.text() == SLOW_LINES
        assert not story.gaps


def follow_some(client: Client, name: str) -> Story:
    """What a watch tells until the fiftieth line."""
    with client.watch(name) as watch:
        return collect(watch, Story(), has_line("line 50"), within=LONG)


def test_a_submit_that_comes_again_after_the_pod_is_gone_finds_its_execution(
    namespace: Namespace, brokers: Brokers, folder: Folder
) -> None:
    client = prepared(brokers, namespace, folder).start().client()
    name = run(client, "again", WORDS)
    archived(folder)
    gone(client, namespace, name)

    found = client.submit(target=TARGET, execution_id="again", pod=shell(WORDS))
    assert not found.created
    assert found.execution.state is ExecutionState.FAILED
    with pytest.raises(podbroker.ConflictError):
        client.submit(target=TARGET, execution_id="again", pod=shell("exit 0"))
    assert not namespace.pods


def test_the_archive_is_nobody_who_follows(namespace: Namespace, brokers: Brokers, folder: Folder) -> None:
    broker = prepared(brokers, namespace, folder)
    broker.config["limits"] = {"shortest_orphan": "1s"}
    client = broker.start().client()
    policies = Policies(orphan_after=datetime.timedelta(seconds=3))
    client.submit(target=TARGET, execution_id="alone", pod=shell("echo hi; sleep 600"), policies=policies)
    archived(folder)
    (ended,) = folder.outcomes()
    assert ended["outcome"]["class"] == "ORPHANED"


def test_an_archived_execution_is_its_tenants_alone(namespace: Namespace, brokers: Brokers, folder: Folder) -> None:
    tokens = {tenant: secrets.token_hex(32) for tenant in ("blue", "green", "red")}
    targets = {"blue": [TARGET], "green": ["*"], "red": []}
    broker = prepared(brokers, namespace, folder)
    broker.config["tokens"] = [
        {
            "sha256": hashlib.sha256(token.encode()).hexdigest(),
            "subject": f"caller-{tenant}",
            "tenant": tenant,
            "targets": targets[tenant],
        }
        for tenant, token in tokens.items()
    ]
    broker.start()
    blue, green, red = (broker.client(token=tokens[tenant]) for tenant in ("blue", "green", "red"))
    name = run(blue, "mine", WORDS)
    archived(folder)
    gone(blue, namespace, name)
    story = follow(blue, name)
    assert story.text() == LINES

    for call in (green.get, green.cancel, green.release, lambda name: list(green.watch(name))):
        with pytest.raises(podbroker.NotFoundError) as missing:
            call(name)
        assert missing.value.reason == "NO_SUCH_EXECUTION"
    with pytest.raises((podbroker.NotFoundError, podbroker.InvalidCursorError)):
        list(green.watch(name, cursor=story.events[-1].cursor))
    for call in (red.get, red.cancel, red.release, lambda name: list(red.watch(name))):
        with pytest.raises((podbroker.NotAllowedError, podbroker.NotFoundError)):
            call(name)


def test_what_has_expired_leaves_the_archive(namespace: Namespace, brokers: Brokers, folder: Folder) -> None:
    broker = prepared(brokers, namespace, folder, retention="1d").start()
    client = broker.client()
    names = [run(client, name, WORDS) for name in ("old", "young")]
    archived(folder, count=2)
    gone(client, namespace, *names)
    cursor = follow(client, names[0]).events[2].cursor
    broker.kill()
    # It becomes a week old, and the other one is only said to be.
    for path in folder.path.rglob("outcome.json"):
        ended = json.loads(path.read_text())
        if ended["execution"]["address"]["id"] == "old":
            ended["execution"]["ended"] = "2026-01-01T00:00:00Z"
            path.write_text(json.dumps(ended))
    (today,) = (folder.path / "e2e/days").iterdir()
    today.rename(today.with_name("2026-01-01"))
    broker.start()
    client = broker.client()
    archived(folder)

    with pytest.raises(podbroker.NotFoundError):
        client.get(names[0])
    with pytest.raises(podbroker.ExpiredError):
        list(client.watch(names[0], cursor=cursor))
    assert follow(client, names[1]).text() == LINES
    executions = {path.split("/")[2] for path in folder.objects() if "/executions/" in path}
    days = {path.split("/")[3] for path in folder.objects() if "/days/" in path}
    assert len(executions) == 1
    wait_for("the day to be put right", lambda: executions == days or not days, within=LONG)


def test_an_object_that_is_not_ours_is_a_gap_and_no_end_of_the_broker(
    namespace: Namespace, brokers: Brokers, folder: Folder
) -> None:
    broker = prepared(brokers, namespace, folder).start()
    client = broker.client()
    names = [run(client, name, WORDS) for name in ("bomb", "garbage", "outcome")]
    archived(folder, count=3)
    gone(client, namespace, *names)
    for path in folder.path.rglob("outcome.json"):
        name = json.loads(path.read_text())["execution"]["address"]["id"]
        segments = list(path.parent.rglob("*.gz"))
        if name == "bomb":
            segments[0].write_bytes(gzip.compress(b"\0" * (1 << 30), compresslevel=1))
        elif name == "garbage":
            segments[0].write_bytes(b"garbage")
        else:
            path.write_bytes(b"[" * 100_000)
    for name in names[:2]:
        story = follow(client, name)
        assert "ARCHIVE_DAMAGED" in story.notices
        assert story.gaps
        assert story.outcome.exit_code == 3
    with pytest.raises(podbroker.UnavailableError):
        broker.client(retry_for=1).get(names[2])
    assert follow(client, run(client, "after", WORDS)).text() == LINES


def test_an_archive_that_cannot_be_written_is_no_start(namespace: Namespace, brokers: Brokers, folder: Folder) -> None:
    folder.path.write_text("no folder")
    broker = prepared(brokers, namespace, folder)
    broker.launch()
    assert broker.wait(within=LONG) != 0
    assert "archive" in broker.log


def test_a_byte_budget_is_told_alike_of_the_pod_and_of_the_archive(
    namespace: Namespace, brokers: Brokers, folder: Folder
) -> None:
    broker = prepared(brokers, namespace, folder, flush="1s").start()
    without = brokers.start(namespace=namespace)
    name = run(broker.client(), "budget", WORDS)
    archived(folder)
    everything = sum(len(line) + 1 for line in LINES)
    cut = "GAP_REASON_BUDGET_EXCEEDED"
    expected = {
        # Nine lines of 7 bytes and four of 8.
        100: (LINES[:13], [cut], [False]),
        everything - 1: (LINES[:-1], [cut], [False]),
        everything: (LINES, [], [True]),
    }
    assert {budget: told(without, name, budget) for budget in expected} == expected
    # This one has both.
    assert {budget: told(broker, name, budget) for budget in expected} == expected
    gone(broker.client(), namespace, name)
    assert {budget: told(broker, name, budget) for budget in expected} == expected


def told(broker: Broker, name: str, budget: int) -> tuple[list[str], list[str], list[bool]]:
    """The lines of a watch with a byte budget, why lines are missing, and which logs were told to their ends."""
    request = {"name": name, "options": {"max_log_bytes": budget}}
    with Wire(broker.port) as wire:
        answers = [json_format.MessageToDict(one) for one in wire.stream("WatchExecution", request)]
    events = [answer["event"] for answer in answers]
    lines = [line for event in events for line in event.get("logChunk", {}).get("lines", [])]
    return (
        [base64.b64decode(line.get("content", "")).decode() for line in lines],
        [event["logGap"]["reason"] for event in events if "logGap" in event],
        [event["logStreamEnd"].get("complete", False) for event in events if "logStreamEnd" in event],
    )
