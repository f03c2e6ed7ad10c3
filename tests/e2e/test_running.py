"""A pod runs: its lines, its states, its result and its end reach the caller."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import podbroker
from e2e.broker import BROKER_USER
from e2e.following import Story, check_lines, collect, ended, follow, follow_until, has_line
from e2e.manifests import UNTIL_TOLD, container, numbered, pod, shell
from e2e.waiting import wait_for
from podbroker import ContainerRole, ExecutionState, FailureClass, GapReason, Policies, ResultSource

if TYPE_CHECKING:
    from e2e.site import Namespace
    from podbroker import Client

TARGET = "local"


def test_lines_of_all_containers_arrive_once_and_in_order(client: Client) -> None:
    manifest = pod(
        container("main", numbered(2000)),
        container("beside", numbered(300, prefix="other", pause="0.003")),
        init=(container("first", numbered(5, prefix="init")),),
    )
    name = client.submit(target=TARGET, execution_id="lines", pod=manifest).execution.name

    story = follow(client, name)

    assert story.text("first") == [f"init {i}" for i in range(1, 6)]
    assert story.text("main") == [f"line {i}" for i in range(1, 2001)]
    assert story.text("beside") == [f"other {i}" for i in range(1, 301)]
    assert set(story.lines) == {"first", "main", "beside"}
    assert not story.gaps
    streams = [event for event in story.events if isinstance(event, podbroker.LogStreamEnd)]
    assert {(one.instance.container, one.complete) for one in streams} == {
        ("first", True),
        ("main", True),
        ("beside", True),
    }
    roles = {one.instance.container: one.instance.role for one in streams}
    assert roles == {"first": ContainerRole.INIT, "main": ContainerRole.DECIDING, "beside": ContainerRole.DECIDING}
    assert story.states[-1] == "SUCCEEDED"
    assert story.outcome.exit_code == 0
    assert story.outcome.failure_class is None


def test_times_and_bytes_are_those_that_the_container_runtime_wrote(namespace: Namespace, client: Client) -> None:
    if not namespace.site.is_own:
        pytest.skip("elsewhere: the node's log files are read")
    script = numbered(200, pause="0.002") + "; printf 'tab\\there \\377\\000 \\r.\\n'; printf 'no newline at the end'"
    name = client.submit(target=TARGET, execution_id="times", pod=shell(script)).execution.name

    story = follow(client, name)

    metadata = namespace.only_pod["metadata"]
    folder = Path(namespace.site.cluster.facts["pod_logs"])
    (file,) = folder.glob(f"{namespace.name}_{metadata['name']}_{metadata['uid']}/main/*.log")
    written = []
    for line in file.read_bytes().split(b"\n")[:-1]:
        time, _stream, _flag, content = line.split(b" ", 3)
        written.append((_nanoseconds(time.decode()), content))
    assert len(written) == 202
    assert [(line.time_ns, line.content) for line in story.lines["main"]] == written
    # The runtime itself takes a carriage return before the newline for a part of it.
    assert story.content()[-2:] == [b"tab\there \xff\x00 \r.", b"no newline at the end"]


def _nanoseconds(time: str) -> int:
    """RFC 3339 with nine digits, which `datetime` would cut to six."""
    whole, _, fraction = time.removesuffix("Z").partition(".")
    seconds = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC).timestamp()
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def test_a_line_is_seen_while_the_container_still_runs(client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="live", pod=shell(UNTIL_TOLD)).execution.name

    # The pod ends only because of the cancel, and the cancel is only sent because the line was seen.
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("ready"), within=90)
        assert client.get(name).state is ExecutionState.RUNNING
        client.cancel(name, reason="seen")
        collect(watch, story, ended, within=90)

    assert story.text() == ["ready", "bye"]
    assert story.states[-1] == "CANCELLED"


def test_the_states_come_in_their_order_and_the_outcome_with_the_first_that_has_one(client: Client) -> None:
    manifest = pod(container("main", "sleep 1; exit 3"), container("beside", UNTIL_TOLD))
    policies = Policies(deciding_containers=("main",), drain_deadline=datetime.timedelta(seconds=2))
    name = client.submit(target=TARGET, execution_id="states", pod=manifest, policies=policies).execution.name

    story = follow(client, name)

    order = ["PENDING", "RUNNING", "ENDING", "FAILED"]
    assert [state for state in order if state in story.states] == story.states
    assert story.states[-2:] == ["ENDING", "FAILED"]
    ending = next(
        event.execution
        for event in story.events
        if isinstance(event, podbroker.StateChanged) and event.execution.state is ExecutionState.ENDING
    )
    assert ending.outcome == story.outcome
    assert story.outcome.failure_class is FailureClass.APPLICATION
    assert story.outcome.exit_code == 3
    assert story.outcome.message


def test_a_container_that_never_ends_does_not_withhold_the_end(namespace: Namespace, client: Client) -> None:
    endless = container("beside", "while :; do echo still here; sleep 0.2; done")
    manifest = pod(container("main", "echo done"), endless)
    policies = Policies(deciding_containers=("main",), drain_deadline=datetime.timedelta(seconds=2))
    name = client.submit(target=TARGET, execution_id="endless", pod=manifest, policies=policies).execution.name

    story = follow(client, name, within=60)

    assert story.outcome.state is ExecutionState.SUCCEEDED
    assert story.text() == ["done"]
    assert [gap.reason for gap in story.gaps] == [GapReason.DRAIN_DEADLINE]
    assert story.gaps[0].instance.container == "beside"
    assert namespace.only_pod["metadata"]["name"] == story.end.attempts[0].pod_name


@pytest.mark.parametrize("source", [ResultSource.SIDECAR, ResultSource.TERMINATION_MESSAGE])
def test_the_result_is_the_bytes_of_the_file_and_no_log_line(client: Client, source: ResultSource) -> None:
    value = json.dumps({"rows": 12345678901234567890, "name": "é\u2028\x7f", "more": "x" * 2000})
    script = f"echo begin; cat > /airflow/xcom/return.json <<'END'\n{value}\nEND\necho end"
    policies = Policies(result=source)
    name = client.submit(target=TARGET, execution_id="result", pod=shell(script), policies=policies).execution.name

    story = follow(client, name)

    assert story.result is not None
    assert not story.result.problem
    assert story.result.content == value.encode() + b"\n"
    assert story.result.source is source
    assert {container: story.text(container) for container in story.lines} == {"main": ["begin", "end"]}
    assert isinstance(story.events[-1], podbroker.End)


def test_a_large_result_is_whole_also_when_the_container_fails(client: Client) -> None:
    script = "head -c 150000 /dev/zero | tr '\\0' '7' > /airflow/xcom/return.json; exit 4"
    policies = Policies(result=ResultSource.SIDECAR)
    name = client.submit(target=TARGET, execution_id="large", pod=shell(script), policies=policies).execution.name

    story = follow(client, name)

    assert story.outcome.exit_code == 4
    assert story.result is not None
    assert story.result.content == b"7" * 150_000


def test_a_missing_result_is_a_problem_that_is_told(client: Client) -> None:
    policies = Policies(result=ResultSource.SIDECAR)
    name = client.submit(target=TARGET, execution_id="none", pod=shell("echo hi"), policies=policies).execution.name

    story = follow(client, name)

    assert story.outcome.state is ExecutionState.SUCCEEDED
    assert story.result is not None
    assert story.result.problem
    assert story.result.content == b""


def test_a_result_over_its_limit_is_a_problem_and_not_cut(client: Client) -> None:
    script = "head -c 5000 /dev/zero | tr '\\0' '7' > /airflow/xcom/return.json"
    policies = Policies(result=ResultSource.SIDECAR, result_max_bytes=4096)
    name = client.submit(target=TARGET, execution_id="over", pod=shell(script), policies=policies).execution.name

    story = follow(client, name)

    assert story.result is not None
    assert story.result.content == b""
    assert "4096" in story.result.problem.replace(",", "").replace("_", "")


def test_a_later_watch_tells_the_whole_story_again_and_a_cursor_only_the_rest(client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="again", pod=shell(numbered(300))).execution.name
    first = follow(client, name)

    assert follow(client, name).text() == first.text()

    chunk = next(event for event in first.events if isinstance(event, podbroker.LogChunk))
    rest = follow(client, name, cursor=chunk.cursor_after(1))
    assert rest.text() == first.text()[1:]
    last = [event for event in first.events if isinstance(event, podbroker.LogChunk)][-1]
    nothing = follow(client, name, cursor=last.cursor)
    assert nothing.text() == []
    assert nothing.end.state is ExecutionState.SUCCEEDED


def test_options_choose_containers_the_last_lines_or_no_lines(client: Client) -> None:
    manifest = pod(container("main", numbered(50)), container("beside", numbered(50, prefix="other")))
    name = client.submit(target=TARGET, execution_id="options", pod=manifest).execution.name
    follow(client, name)

    def read(watch: podbroker.Watch) -> dict[str, list[str]]:
        with watch:
            story = collect(watch, Story(), ended, within=60)
        return {container: story.text(container) for container in story.lines}

    assert read(client.watch(name, logs=False)) == {}
    assert list(read(client.watch(name, containers=("beside",)))) == ["beside"]
    last = {"main": ["line 49", "line 50"], "beside": ["other 49", "other 50"]}
    assert read(client.watch(name, tail_lines=2)) == last
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert read(client.watch(name, since=later)) == {}


def test_two_watches_cost_one_read_and_one_that_stops_reading_loses_nothing(
    namespace: Namespace, client: Client
) -> None:
    if not namespace.site.is_own:
        pytest.skip("elsewhere: the API server's record of requests is read")
    # 50 MB: five times the size at which the kubelet rotates, so most of it is in no file when the slow watch goes on.
    line = "x" * 992
    hundred = f"awk 'BEGIN{{for(k=1;k<=100;k++)printf \"%07d {line}\\n\", k}}'"
    script = f"i=0; while [ $i -lt 500 ]; do i=$((i+1)); {hundred}; sleep 0.1; done"
    name = client.submit(target=TARGET, execution_id="shared", pod=shell(script)).execution.name

    with client.watch(name) as slow:
        story = collect(slow, Story(), lambda story: story.lines, within=120)
        fast = follow(client, name, within=400)
        collect(slow, story, ended, within=400)

    expected = [b"%07d %s" % (number, line.encode()) for _ in range(500) for number in range(1, 101)]
    for one in (fast, story):
        check_lines(one.content(), expected, one.gaps)
    follows = [
        request["requestURI"]
        for request in namespace.site.cluster.requests(BROKER_USER)
        if "/log?" in request["requestURI"] and "follow=true" in request["requestURI"]
    ]
    assert len([uri for uri in follows if f"/namespaces/{namespace.name}/" in uri]) == 1


def test_a_watch_that_comes_late_has_the_last_runs_of_a_container_and_a_word_on_those_before(
    namespace: Namespace, client: Client
) -> None:
    count = "n=$(cat /runs/n 2>/dev/null || echo 0); echo $((n+1)) > /runs/n; echo run $n; exit 1"
    mounts = [{"name": "runs", "mountPath": "/runs"}]
    manifest = shell(count, restartPolicy="OnFailure", volumes=[{"name": "runs", "emptyDir": {}}])
    manifest["spec"]["containers"][0]["volumeMounts"] = mounts
    name = client.submit(target=TARGET, execution_id="again", pod=manifest).execution.name

    def waits_after_three_runs() -> bool:
        (status,) = (namespace.only_pod["status"].get("containerStatuses") or [None],)[0]
        return bool(status and status["restartCount"] == 2 and "waiting" in status["state"])

    wait_for("the third run to have ended", waits_after_three_runs, within=240)

    story = follow_until(client, name, has_line("run 2"), within=120)
    client.cancel(name)
    whole = follow(client, name, within=240)

    for one in (story, whole):
        lines = [
            (chunk.instance.restart, line.content.decode())
            for chunk in one.events
            if isinstance(chunk, podbroker.LogChunk)
            for line in chunk.lines
        ]
        # Each run's lines are its own, and come once.
        assert sorted(lines) == sorted({(restart, f"run {restart}") for restart, _ in lines})
        # The runs before are nowhere any more.
        assert lines
        assert one.gaps
        assert {gap.reason for gap in one.gaps} == {GapReason.ROTATED}


def test_a_watch_that_does_not_follow_ends_with_the_present(client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="present", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))

    with client.watch(name, follow=False) as watch:
        events = list(watch)

    assert not any(isinstance(event, podbroker.End) for event in events)
    lines = [line.content for event in events if isinstance(event, podbroker.LogChunk) for line in event.lines]
    assert lines == [b"ready"]
    client.cancel(name)


def test_get_list_and_the_full_view_agree_with_the_cluster(namespace: Namespace, client: Client) -> None:
    for number in range(5):
        client.submit(
            target=TARGET,
            execution_id=f"list-{number}",
            pod=shell(UNTIL_TOLD, nodeSelector={"nowhere": "x"}),
            labels={"half": "even" if number % 2 == 0 else "odd"},
        )

    page = client.list(TARGET, page_size=2)
    names = [execution.execution_id for execution in page.executions]
    while page.next_page_token:
        page = client.list(TARGET, page_size=2, page_token=page.next_page_token)
        names += [execution.execution_id for execution in page.executions]
    assert names == [f"list-{number}" for number in range(5)]
    even = client.list(TARGET, labels={"half": "even"}).executions
    assert [execution.execution_id for execution in even] == ["list-0", "list-2", "list-4"]
    assert client.list(TARGET, states=(ExecutionState.RUNNING,)).executions == ()

    full = client.get(even[0].name, full=True)
    assert full.pod_json is not None
    there = namespace.pod(full.attempts[0].pod_name)
    assert there is not None
    assert json.loads(full.pod_json)["metadata"]["uid"] == there["metadata"]["uid"] == full.attempts[0].pod_uid
    assert client.get(even[0].name).pod_json is None


def test_validate_only_creates_nothing(namespace: Namespace, client: Client) -> None:
    submission = client.submit(target=TARGET, execution_id="dry", pod=shell("true"), validate_only=True)

    assert submission.execution.name == ""
    assert submission.execution.pod_json is not None
    assert namespace.pods == []


def test_the_wishes_of_the_manifest_reach_the_pod(namespace: Namespace, client: Client) -> None:
    manifest = pod(
        container("main", "echo $GREETING", env=[{"name": "GREETING", "value": "good day"}]),
        metadata={"name": "my-name", "labels": {"team": "blue"}, "annotations": {"note": "keep"}},
        hostname="there",
    )
    name = client.submit(target=TARGET, execution_id="wishes", pod=manifest).execution.name

    story = follow(client, name)

    assert story.text() == ["good day"]
    there = namespace.only_pod
    assert there["metadata"]["name"] != "my-name"
    assert "my-name" in there["metadata"]["annotations"].values()
    assert there["metadata"]["labels"]["team"] == "blue"
    assert there["metadata"]["annotations"]["note"] == "keep"
    assert there["spec"]["hostname"] == "there"
    assert there["spec"]["restartPolicy"] == "Never"


def test_a_manifest_may_be_a_mapping_text_or_bytes_and_is_the_same_request(client: Client) -> None:
    manifest = shell("echo same")
    first = client.submit(target=TARGET, execution_id="forms", pod=manifest)
    text = client.submit(target=TARGET, execution_id="forms", pod=json.dumps(manifest, indent=2))
    raw = client.submit(target=TARGET, execution_id="forms", pod=json.dumps(manifest, sort_keys=True).encode())

    assert [first.created, text.created, raw.created] == [True, False, False]
    assert first.execution.name == text.execution.name == raw.execution.name
