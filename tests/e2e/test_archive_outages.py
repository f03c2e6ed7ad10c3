"""A bucket that refuses, asks for patience, or breaks off: executions run on, and nothing is lost unsaid."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Final

import pytest

from e2e.archiving import LINES, LONG, SLOW, SLOW_LINES, WORDS, archived, gone, prepared, run
from e2e.broker import TARGET, program
from e2e.following import follow
from e2e.stores import SECRET
from e2e.waiting import wait_for
from podbroker import CheckStatus, ExecutionState

if TYPE_CHECKING:
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace
    from e2e.stores import Bucket

FAULTS: Final = {
    "503 Service Unavailable": b"<Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>",
    "403 Forbidden": b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
}
TROUBLE: Final = "the archive cannot be used"


def readiness(broker: Broker) -> tuple[int, str]:
    """What `/readyz` answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.admin_port}/readyz", timeout=10) as answer:
        return answer.status, answer.read().decode()


def metric(broker: Broker, name: str) -> float:
    """One metric without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.admin_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(rf"^podbroker_archive_{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


@pytest.mark.parametrize("status", FAULTS)
def test_an_outage_is_told_once_harms_nobody_and_is_made_up_for(
    namespace: Namespace, brokers: Brokers, bucket: Bucket, status: str
) -> None:
    broker = prepared(brokers, namespace, bucket, flush="1s").start()
    client = broker.client()
    first = run(client, "first", SLOW)
    wait_for("a segment", lambda: any(path.endswith(".gz") for path in bucket.objects()), within=LONG)
    assert readiness(broker) == (200, "ready\n")
    *_, well = client.check(TARGET)
    assert (well.link, well.status) == ("archive", CheckStatus.PASSED)

    fault = bucket.proxy.answer("*", "/", status=status, body=FAULTS[status])
    second = run(client, "second", WORDS)
    for name, lines in ((first, SLOW_LINES), (second, LINES)):
        story = follow(client, name)
        assert story.text() == lines
        assert not story.gaps
        client.release(name)
    wait_for("both to wait", lambda: metric(broker, "waiting") == 2, within=LONG)
    code, text = readiness(broker)
    assert code == 200
    assert "2 executions wait" in text
    assert metric(broker, "trouble") == 1
    *_, broken = client.check(TARGET)
    assert (broken.link, broken.status) == ("archive", CheckStatus.WARNING)
    assert ("policy" in broken.fix) == status.startswith("403")
    assert len(namespace.pods) == 2
    assert not bucket.outcomes()
    assert fault.done > 0
    # A listing that is refused looks like a silence; if that comes first, the refusal is news.
    assert 1 <= broker.log.count(TROUBLE) <= (2 if status.startswith("403") else 1)

    fault.stop()
    wait_for("the pods to be deleted", lambda: not namespace.pods, within=LONG)
    wait_for("the end of it", lambda: readiness(broker) == (200, "ready\n"), within=LONG)
    assert metric(broker, "trouble") == metric(broker, "waiting") == 0
    assert metric(broker, "given_up_total") == metric(broker, "lost_total") == 0
    assert "the archive can be used again" in broker.log
    for name, lines in ((first, SLOW_LINES), (second, LINES)):
        story = follow(client, name)
        assert story.text() == lines
        assert not story.gaps
    assert SECRET not in broker.log


def test_an_upload_that_breaks_off_is_made_again(namespace: Namespace, brokers: Brokers, bucket: Bucket) -> None:
    client = prepared(brokers, namespace, bucket, flush="1s").start().client()
    cut = bucket.proxy.cut_upload(r"\.gz|outcome\.json|claim\.json", times=8)
    name = run(client, "cut", SLOW)
    archived(bucket)
    assert cut.done == cut.times
    gone(client, namespace, name)
    story = follow(client, name)
    assert story.text() == SLOW_LINES
    assert not story.gaps


def test_a_pod_that_goes_unarchived_leaves_its_outcome_and_the_word_that_lines_are_missing(
    namespace: Namespace, brokers: Brokers, bucket: Bucket
) -> None:
    broker = prepared(brokers, namespace, bucket, flush="1s", patience="20s").start()
    client = broker.client()
    began = run(client, "began", SLOW)
    wait_for("a segment", lambda: any(path.endswith(".gz") for path in bucket.objects()), within=LONG)
    fault = bucket.proxy.answer("*", "/", status="503 Service Unavailable")
    never = run(client, "never", WORDS)
    for name in (began, never):
        assert follow(client, name).outcome.state.is_final
        client.release(name)
    wait_for("the pods to be deleted", lambda: not namespace.pods, within=LONG)
    assert metric(broker, "given_up_total") == 2
    wait_for("both to be remembered", lambda: metric(broker, "waiting") == 2, within=LONG)
    fault.stop()
    archived(bucket, count=2)

    story = follow(client, never)
    assert story.outcome.exit_code == 3
    assert "ARCHIVE_INCOMPLETE" in story.notices
    assert not story.text()
    assert [gap.instance.container for gap in story.gaps] == ["main"]
    # What this one said was read all the time, and is held for the archive.
    story = follow(client, began)
    assert story.outcome.state is ExecutionState.SUCCEEDED
    assert story.text() == SLOW_LINES[: len(story.text())]
    assert story.text() == SLOW_LINES or story.gaps
    assert metric(broker, "lost_total") == 0


def test_a_bucket_that_refuses_at_the_start_is_told_and_pods_run(
    namespace: Namespace, brokers: Brokers, bucket: Bucket
) -> None:
    status = "403 Forbidden"
    fault = bucket.proxy.answer("*", "/", status=status, body=FAULTS[status])
    broker = prepared(brokers, namespace, bucket, flush="1s").start()
    assert TROUBLE in broker.log
    assert "cannot be used" in readiness(broker)[1]
    client = broker.client()
    name = run(client, "early", WORDS)
    assert follow(client, name).text() == LINES
    *chain, archive = client.check(TARGET)
    assert {check.status for check in chain} == {CheckStatus.PASSED}
    assert (archive.link, archive.status) == ("archive", CheckStatus.WARNING)
    assert archive.fix
    environment = {"PATH": os.environ["PATH"], "PODBROKER_ADDRESS": broker.address}
    command = [str(program()), "check", TARGET]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^warn  archive ", done.stdout, re.MULTILINE)

    fault.stop()
    archived(bucket)
    assert not follow(client, name).gaps


def test_a_bucket_that_does_not_exist_is_no_start(namespace: Namespace, brokers: Brokers, bucket: Bucket) -> None:
    broker = prepared(brokers, namespace, bucket, url="s3://no-such-bucket/archive")
    broker.launch()
    assert broker.wait(within=LONG) != 0
    assert "the archive cannot be written" in broker.log
    assert "no-such-bucket" in broker.log or "NoSuchBucket" in broker.log
