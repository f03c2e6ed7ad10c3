"""Adds up and prints: Markdown tables, so that they can be put into a page as they are."""

from __future__ import annotations

import math
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.manifests import IMAGE

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping, Sequence

    from bench.lanes import Cost, Sample

NAMES: Final = {
    "ours": "RemotePodOperator",
    "client": "Python client alone",
    "peer": "KubernetesPodOperator",
    "peer-without-logs": "the same, get_logs=False",
    "peer-deferred": "the same, deferrable",
}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"

    ruler = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(head), ruler, *map(line, rows)])


def requests_table(costs: Mapping[tuple[str, int], Cost], *, kinds: Sequence[str], lengths: Sequence[int]) -> str:
    """Requests per execution, and what they were."""
    rows = []
    for kind in kinds:
        counts = [costs[kind, seconds].own.total() for seconds in lengths]
        ratios = [count / costs["ours", seconds].own.total() for count, seconds in zip(counts, lengths, strict=True)]
        rows.append([NAMES[kind], *map(str, counts), *(f"{ratio:.1f}" for ratio in ratios)])
    head = ["requests of one execution", *(f"pod of {s} s" for s in lengths), *(f"/ ours, {s} s" for s in lengths)]
    detail = [f"What they were, pod of {lengths[-1]} s:"]
    detail += [f"- {NAMES[kind]}: {_said(costs[kind, lengths[-1]].own)}" for kind in kinds]
    shared = costs["ours", lengths[-1]]
    detail.append(
        f"- RemotePodOperator's broker, for all executions of the target together: {_said(shared.shared)} "
        f"in {shared.lifetime / 60:.0f} minutes"
    )
    return "\n".join([table(head, rows), "", *detail])


def delay_table(samples: Mapping[str, Sequence[Sample]]) -> str:
    """From the container's end on."""
    ours, peer, client = samples["ours"], samples["peer"], samples["client"]

    def row(name: str, left: list[float], right: list[float] | None) -> list[str]:
        cells = [_seconds(left, 0.5), _seconds(left, 0.9)]
        if right is None:
            return [name, *cells, "", "", ""]
        ratio = percentile(right, 0.5) / percentile(left, 0.5)
        return [name, *cells, _seconds(right, 0.5), _seconds(right, 0.9), f"{ratio:.1f}"]

    def both(name: str, take: Callable[[Sample], float]) -> list[str]:
        return row(name, [take(one) for one in ours], [take(one) for one in peer])

    rows = [
        both("container's end to operator's return", lambda one: one.to_return),
        # The same kubelet's for both: chance decides, so there is no ratio.
        [*both("of that: until the API server tells it", lambda one: one.cluster)[:-1], ""],
        both("of that: from there to the return", lambda one: one.told_to_return),
        row("API server tells it to END, in the operator", [one.told_to_end for one in ours], None),
        row("API server tells it to END, client alone", [one.told_to_end for one in client], None),
    ]
    head = ["seconds", "ours p50", "ours p90", "peer p50", "peer p90", "peer / ours, p50"]
    return table(head, rows)


def memory_table(samples: Mapping[str, Sequence[Sample]]) -> str:
    """The memory of the process: before it came to its own work, after it, and the difference."""
    rows = []
    for kind in ("client", "ours", "peer"):
        cells = [NAMES[kind]]
        for what in ("resident", "anonymous"):
            before = statistics.median(one.answer.memory_before[what] for one in samples[kind]) / 1e6
            after = statistics.median(one.answer.memory_after[what] for one in samples[kind]) / 1e6
            # The median of the differences: the interpreter's own memory differs a little from run to run.
            added = statistics.median(
                (one.answer.memory_after[what] - one.answer.memory_before[what]) / 1e6 for one in samples[kind]
            )
            cells += [f"{before:.0f}", f"{after:.0f}", f"{added:+.1f}"] if what == "resident" else [f"{added:+.1f}"]
        rows.append(cells)
    head = ["MB, median", "after the imports", "at the end", "added", "added, not of files"]
    return table(head, rows)


def conditions(*, kubernetes: str) -> str:
    """Where and with what everything was measured."""
    return bullets(
        ("machine", f"{os.cpu_count()} CPUs ({_processor()}), Linux {platform.release()}"),
        ("cluster", f"Kubernetes {kubernetes}, one node, on the same machine; image {IMAGE}"),
        ("ours", f"podbroker {version('podbroker')}, broker and Python package with optimisations"),
        ("Python", platform.python_version()),
    )


def bullets(*lines: tuple[str, str]) -> str:
    """A Markdown list of named conditions."""
    return "\n".join(f"- {name}: {value}" for name, value in lines)


def _said(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counted.items()))


def _seconds(values: Sequence[float], share: float) -> str:
    return f"{percentile(values, share):.3f}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
