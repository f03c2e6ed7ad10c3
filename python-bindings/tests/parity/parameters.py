"""``python -m parity.parameters [FILE]``: write ``docs/parameters.md`` from our table and upstream's signature."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Airflow writes into its home when it is imported.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="podbroker-parameters-"))

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

from parity.sources import PROVIDER, SOURCE
from podbroker.airflow.batch import BatchOperator
from podbroker.airflow.batch_parameters import BATCH_PARAMETERS, BATCH_TEMPLATE_FIELDS
from podbroker.airflow.eks import EksPodOperator
from podbroker.airflow.operator import RemotePodOperator
from podbroker.airflow.parameters import EKS_PARAMETERS, PARAMETERS, Parameter, upstream_defaults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGE = Path(__file__).resolve().parents[3] / "docs" / "parameters.md"

INTRODUCTION = """\
# Arguments

<!-- Written by `python -m parity.parameters` in python-bindings/tests. -->

What becomes of each argument of `KubernetesPodOperator` ({provider} {version}) in
`RemotePodOperator`. Templates, the order in which they are merged (arguments over `full_pod_spec` over the template),
the naming, the labels, the pod mutation hook and `dry_run` are upstream's own code. Upstream's tests say the same of
most of them: [parity](parity.md). `RemotePodOperator`'s own arguments are in [Airflow](airflow.md#the-operator).

| Word | Means |
|---|---|
| same | what upstream does |
| better | what upstream does, and more |
| differs | something else, for the reason given |
| no effect | accepted, and named in the task log when it is given |
| refused | an error |

{count} arguments; *T* marks those that are templated.

| Argument | Default | | Compared | How |
|---|---|---|---|---|
"""

EKS = """\

## EksPodOperator

In place of the Amazon provider's operator. Beside these it takes every argument above.

| Argument | Default | | Compared | How |
|---|---|---|---|---|
"""

BATCH = """\

## BatchOperator

In place of the Amazon provider's operator (9.39.0), for jobs on EKS. Its own arguments are on [its
page](operators/batch.md).

| Argument | Default | | Compared | How |
|---|---|---|---|---|
"""

NOTES = """\

## Beside arguments

- A pod mutation hook sees the pod without the sidecar of `do_xcom_push`, which the broker adds later. Where the
  namespace is the target's, it sees `podbroker-target`; one that it sets counts.
- Subclasses may override what is called: `build_pod_request_obj`, `get_or_create_pod`, `find_pod`, `cleanup`,
  `post_complete_action`, `on_kill`, `hook`, `client`. Steps of upstream's life cycle that are not called
  (`await_pod_start`, `await_pod_completion`, `extract_xcom`, `process_pod_deletion`, `patch_already_checked` and so on)
  are named in the task log when a subclass overrides them.
"""


def write() -> str:
    """Give the text of the page."""
    ours = inspect.signature(RemotePodOperator.__init__).parameters
    rows = []
    for name, parameter in PARAMETERS.items():
        default = repr(upstream_defaults()[name])
        if name in ours and repr(ours[name].default) != default:
            default = f"{ours[name].default!r}`, upstream `{default}"
        rows.append(_row(name, default, parameter, templated=name in KubernetesPodOperator.template_fields))
    eks = _rows(EksPodOperator, EKS_PARAMETERS, EksPodOperator.template_fields)
    batch = _rows(BatchOperator, BATCH_PARAMETERS, BATCH_TEMPLATE_FIELDS)
    head = INTRODUCTION.format(provider=PROVIDER, version=SOURCE.version, count=len(PARAMETERS))
    return head + "\n".join(rows) + "\n" + EKS + eks + BATCH + batch + NOTES


def _rows(kind: type[Any], table: Mapping[str, Parameter], templated: Sequence[str]) -> str:
    ours = inspect.signature(inspect.unwrap(kind.__init__)).parameters
    rows = []
    for name, parameter in table.items():
        default = (
            ""
            if name not in ours
            else "required"
            if ours[name].default is ours[name].empty
            else repr(ours[name].default)
        )
        rows.append(_row(name, default, parameter, templated=name in templated) + "\n")
    return "".join(rows)


def _row(name: str, default: str, parameter: Parameter, *, templated: bool) -> str:
    shown = f"`{default}`" if default else ""
    return f"| `{name}` | {shown} | {'T' if templated else ''} | {parameter.verdict.value} | {parameter.how} |"


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else PAGE).write_text(write())
