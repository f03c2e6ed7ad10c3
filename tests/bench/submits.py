"""How fast executions are started through the broker, beside plain creates of the very same pods at the API server.

The pods want a scheduler that does not exist, so nothing but the API server and the broker works for them. Those of the
peer have the metadata that the broker gives its own, so both are as large; they go into a namespace of their own, so
that no broker watches them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from bench.processes import Meter, access, drive, memory
from bench.stage import Stage, say
from bench.tables import bullets, percentile, table
from e2e.manifests import shell

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import podbroker

TARGET: Final = "bench"


def add_options(group: argparse._ArgumentGroup) -> None:
    """How many."""
    group.add_argument("--submits", type=int, default=1000, help="pods of each try (default 1,000)")
    group.add_argument("--submit-tries", type=int, default=3, help="tries of each kind (default 3)")
    group.add_argument("--at-a-time", type=int, default=50, help="requests that are open at a time (default 50)")


def measure(stage: Stage, options: argparse.Namespace) -> str:
    """Both kinds in turn, the raw creates first and last."""
    count, tries, at_a_time = options.submits, options.submit_tries, options.at_a_time
    reports: dict[str, list[dict[str, Any]]] = {"raw": [], "ours": []}
    processors = 0.0
    theirs, namespace = stage.namespace_that_stays(), stage.namespace_that_stays()
    with stage.brokers() as brokers:
        broker = brokers.start(namespace=namespace, instance="bench-submits", target=TARGET)
        manifest = stage.folder / "manifest.json"
        manifest.write_text(json.dumps(shell("true", schedulerName="nobody")))
        made = stage.folder / "made.json"
        made.write_text(json.dumps(_made(broker.client(), manifest)))
        amount = [f"--count={count}", f"--at-a-time={at_a_time}"]
        # Neither begins with a cold API server.
        raw = ["create", *access(stage, "bench-raw"), f"--namespace={theirs.name}", f"--manifest={made}"]
        drive(*raw, "--count=100", "--prefix=warm")
        for number in range(tries):
            say(f"submits: try {number + 1} of {tries}, {count:,} pods of each kind")
            reports["raw"].append(drive(*raw, *amount, f"--prefix=raw-{number}"))
            with Meter(pid=broker.pid) as meter:
                submit = ["submit", f"--address={broker.address}", f"--target={TARGET}", f"--manifest={manifest}"]
                reports["ours"].append(drive(*submit, *amount, f"--prefix=try-{number}"))
            processors += meter.processors
        peak = memory(broker.pid)["largest"]
    rates = {kind: [one["count"] / one["seconds"] for one in some] for kind, some in reports.items()}
    usual = percentile(rates["raw"], 0.5)
    costs = {"raw": "", "ours": f"{processors / count / tries * 1e6:,.0f}"}
    rows = []
    for kind, name in (("raw", "plain creates"), ("ours", "submits through the broker")):
        rate = percentile(rates[kind], 0.5)
        delay = [f"{percentile([one['delay'][key] for one in reports[kind]], 0.5):.0f}" for key in ("p50", "p99")]
        span = f"{min(rates[kind]):,.0f} to {max(rates[kind]):,.0f}"
        rows.append([name, f"{rate:,.0f}", span, f"{rate / usual:.2f}", *delay, costs[kind]])
    head = ["", "pods/s", "lowest to highest", "/ plain", "p50 ms", "p99 ms", "broker's CPU, µs each"]
    return "\n\n".join(
        [
            "## Starting pods",
            table(head, rows),
            bullets(
                ("tries", f"{tries} of each kind in turn, {count:,} pods each, {at_a_time} at a time; the median"),
                ("pods", "the same labels, annotations and spec for both; for a scheduler that does not exist"),
                ("peer", "HTTP/1.1 with keep-alive, compiled; the broker submits with all its checks"),
                ("largest memory of the broker", f"{peak / 1e6:.0f} MB"),
            ),
        ]
    )


def _made(client: podbroker.Client, manifest: Path) -> dict[str, Any]:
    """What the broker makes of the manifest, without what the API server adds to it."""
    text = manifest.read_text()
    submission = client.submit(target=TARGET, execution_id="sample", pod=text, validate_only=True)
    assert submission.execution.pod_json
    made, asked = json.loads(submission.execution.pod_json), json.loads(text)
    metadata = {key: made["metadata"][key] for key in ("labels", "annotations", "finalizers")}
    return {**asked, "metadata": metadata, "spec": {**asked["spec"], "restartPolicy": made["spec"]["restartPolicy"]}}
