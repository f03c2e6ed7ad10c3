"""``python -m parity.page``: write ``docs/parity.md`` from ``expected.toml``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from parity.ledger import Ledger, file_of, load
from parity.sources import PROVIDER

PAGE = Path(__file__).resolve().parents[3] / "docs" / "parity.md"

SHARED = (
    "backcompat/test_backwards_compat_converters.py",
    "test_kubernetes_helper_functions.py",
    "test_pod_generator.py",
    "test_secret.py",
    "utils/test_container.py",
    "utils/test_xcom_sidecar.py",
)
"""Tests of functions that our operator calls or inherits, and that have nothing of ours in place."""

INTRODUCTION = """\
# Parity with the Kubernetes provider

<!-- Written by `python -m parity.page` in python-bindings/tests. -->

`make parity` runs the unit tests of `{provider}` {version} with our classes in the place
of the provider's. The test files come from that version's source distribution, which pip fetches once and whose hash is
pinned; they are not changed by a byte.

**{passed} tests pass**: {ours} with our classes in place, and {shared} of functions of the provider that the operator
uses as they are. The others fail for the reasons below. The run fails if one of them passes, if another one fails, if
one is gone, or if fewer pass than are written down here.

While the tests run, the operator speaks to a broker that plays what a test has prepared for the provider's
`PodManager`: what becomes of the pod, what it hands back. The pod that a test looks at is the one that was submitted,
read back from its JSON.

## What passes

| Tests | Pass | In place |
|---|---|---|
{files}

## What does not, and why
"""

IN_PLACE = {
    "operators/test_job.py": (
        "`RemoteJobOperator` for `KubernetesJobOperator`, whose tests alone are run; 17 are of steps that ours inherits"
        " and never takes"
    ),
    "operators/test_kueue.py": (
        "`RemoteStartKueueJobOperator` for `KubernetesStartKueueJobOperator`, whose tests alone are run"
    ),
    "operators/test_pod.py": "`RemotePodOperator` for `KubernetesPodOperator`",
    "utils/test_pod_manager.py": "the printer of `RemotePodOperator` for `PodManager`",
    "triggers/test_pod.py": "the trigger of `RemotePodOperator`",
}


def write(ledger: Ledger) -> str:
    """Give the text of the page."""
    total = sum(ledger.passed.values())
    shared = sum(ledger.passed.get(name, 0) for name in SHARED)
    rows = []
    for name, passed in ledger.passed.items():
        what = "nothing; the operator uses the functions" if name in SHARED else IN_PLACE.get(name)
        rows.append(f"| `{name}` | {passed} | {what or '`@task.remote_pod` and `@task.remote_pod_cmd`'} |")
    parts = [
        INTRODUCTION.format(
            provider=PROVIDER,
            version=ledger.provider,
            passed=total,
            ours=total - shared,
            shared=shared,
            files="\n".join(rows),
        )
    ]
    parts += [_category(category.name, category.reason, category.tests) for category in ledger.categories]
    return "\n".join(parts).rstrip() + "\n"


def _category(name: str, reason: str, tests: tuple[str, ...]) -> str:
    files = Counter(map(file_of, tests))
    where = ", ".join(f"{count} in `{file}`" for file, count in files.items())
    listed = "\n".join(f"- `{test.partition('::')[2]}`" for test in tests)
    return (
        f"### {name}\n\n{reason.strip()}\n\n"
        f"<details><summary>{where}; a test with several parameters counts once if all fail</summary>\n\n"
        f"{listed}\n\n</details>\n"
    )


if __name__ == "__main__":
    PAGE.write_text(write(load()))
