"""Plays rows: those on pods side by side, those on the cluster one after another; then tidies up through a broker.

The broker that tidies up has seen none of the executions begin. What it leaves behind counts as left by the row.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import podbroker
from cluster.errors import ClusterError
from e2e.broker import BROKER_USER, Brokers, image
from e2e.following import follow
from e2e.waiting import wait_for
from faults.ledger import Account
from faults.row import Place, Row, Verdict
from faults.stage import INSTANCE, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from e2e.site import Namespace, Site
    from faults.reader import Reader
    from faults.witness import Instance, Line, Witness

#: Rows at a time: more would only wait for each other's processors.
_WORKERS: Final = 4
#: Seconds for every pod to be gone: the window, the minute after it, the grace after a release, and a slow machine.
_SWEEP_LIMIT: Final = 400.0

GIVEN_UP: Final = frozenset({podbroker.GapReason.DRAIN_DEADLINE})
#: Markers for lines that nobody has taken away.
EXCUSES: Final = GIVEN_UP | {podbroker.GapReason.BUDGET_EXCEEDED, podbroker.GapReason.REFUSED}

#: In the order in which they need each other.
PARTS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "containerd", "kubelet")


@dataclass(kw_only=True)
class Runner:
    """Plays rows on one cluster."""

    site: Site
    witness: Witness
    folder: Path
    say: Callable[[str], None] = print
    _namespaces: dict[str, Namespace] = field(default_factory=dict)
    _stages: dict[str, Stage] = field(default_factory=dict)
    _lasting: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def run(self, rows: Sequence[Row]) -> list[Verdict]:
        """Plays them all; the verdicts are in the order of the rows."""
        with contextlib.ExitStack() as closing:
            for row in rows:
                self._namespaces[row.target] = closing.enter_context(self.site.namespace(prefix="pb-fault"))
            # Before the namespaces.
            closing.enter_context(self._lasting)
            verdicts = {}
            beside = [row for row in rows if row.place is Place.BESIDE]
            with ThreadPoolExecutor(_WORKERS) as pool:
                for verdict in pool.map(self._play, beside):
                    verdicts[verdict.row] = verdict
            broken_by = ""
            for row in (row for row in rows if row.place is Place.ALONE):
                if broken_by:
                    problem = f"the cluster is broken: {broken_by}"
                    verdicts[row] = Verdict(row=row, seen="not played", problems=[problem])
                    continue
                verdicts[row] = self._play(row)
                try:
                    self._mend()
                except ClusterError as error:
                    broken_by = str(error)
            answer = [verdicts[row] for row in rows]
            if not broken_by:
                self._sweep(answer)
        return answer

    def _play(self, row: Row) -> Verdict:
        verdict = Verdict(row=row)
        begin = time.monotonic()
        folder = self.folder / row.target
        folder.mkdir()
        brokers = Brokers(site=self.site, folder=folder)
        with contextlib.ExitStack() as closing:
            closing.callback(brokers.close)
            stage = Stage(
                site=self.site,
                namespace=self._namespaces[row.target],
                brokers=brokers,
                witness=self.witness,
                target=row.target,
                closing=closing,
                lasting=self._lasting,
            )
            self._stages[row.target] = stage
            try:
                row.play(stage)
            except Exception as error:  # noqa: BLE001  whatever it is, the other rows go on and this one has failed
                verdict.problems.append(f"{type(error).__name__}: {error}"[:300])
                verdict.log = traceback.format_exc()
            self._judge(stage, verdict)
            for reader in stage.readers:
                reader.stop()
            self._release(stage, verdict)
            if not verdict.holds:
                verdict.log += brokers.show() + (stage.jobs.show() if stage.jobs is not None else "")
        verdict.seconds = time.monotonic() - begin
        self.say(f"{'holds' if verdict.holds else 'BROKEN'} {verdict.seconds:5.0f} s  {row.fault}: {verdict.seen}")
        for problem in verdict.problems:
            self.say(f"       {problem}")
        return verdict

    def _judge(self, stage: Stage, verdict: Verdict) -> None:
        row = verdict.row
        judged = [reader for reader in stage.readers if reader.judged]
        written = self.witness.lines(stage.namespace.name)
        accounts = [_accounts(readers, judged, written) for readers in _by_execution(judged)]
        if row.may_be_unsure:
            accounts = [[replace(account, false_markers=0) for account in some] for some in accounts]
        # All of them must be right; of each execution the one that is worst off is shown.
        verdict.account = sum((max(some, key=lambda one: len(one.problems)) for some in accounts), Account())
        for problem in sorted({problem for some in accounts for account in some for problem in account.problems}):
            verdict.problems.append(problem)
        # A marker excuses what is gone, and not what could be read: those lines are somewhere.
        reasons = {gap.reason for reader in judged for gap in reader.story.gaps}
        if excuses := reasons & EXCUSES - (GIVEN_UP if row.may_give_up else set()):
            verdict.problems.append(f"lines were given up: {', '.join(sorted(reason.value for reason in excuses))}")
        ends = {ending(reader) for reader in judged}
        if ends and ends != {row.ends}:
            verdict.problems.append(f"ended as {' and '.join(sorted(ends))}, should as {row.ends}")
        shown = sorted(ends) + sorted({marks(reader) for reader in judged} - {""}) + stage.remarks
        verdict.seen = "; ".join(shown) or "nothing"
        verdict.made = stage.made()
        if verdict.made != row.made:
            verdict.problems.append(f"{verdict.made} made, should be {row.made}")
        if stage.jobs is not None:
            verdict.problems += stage.jobs.problems(duplicates=row.duplicates)

    def _release(self, stage: Stage, verdict: Verdict) -> None:
        for client, name in stage.names:
            try:
                if not client.get(name).state.is_final:
                    # Only a row that has failed leaves one running.
                    client.cancel(name)
                    follow(client, name, within=60)
                client.release(name)
            except (podbroker.PodbrokerError, AssertionError) as error:
                if not isinstance(error, podbroker.NotFoundError):
                    verdict.problems.append(f"cannot be released: {error}"[:300])

    def _mend(self) -> None:
        for part in PARTS:
            if self.site.cluster.facts["components"][part]["pid"] is not None:
                with contextlib.suppress(Exception):
                    self.site.cluster.component(part, "resume")
            self.site.cluster.component(part, "start")

    def _sweep(self, verdicts: Sequence[Verdict]) -> None:
        """Waits until the pods of all rows are gone, and the records of jobs."""
        folder = self.folder / "sweep"
        folder.mkdir()
        brokers = Brokers(site=self.site, folder=folder)
        kubeconfig = str(self.site.user(BROKER_USER))
        targets = [
            {
                "name": row.target,
                "kind": "kubeconfig",
                "kubeconfig": kubeconfig,
                "namespace": self._namespaces[row.target].name,
                "result_image": image(),
            }
            for row in (verdict.row for verdict in verdicts)
            if self._stages[row.target].jobs is None
        ]
        try:
            if targets:
                brokers.start(namespace="", instance=INSTANCE, targets=targets)
            # Each row's AWS is a place of its own, and a broker knows one.
            for jobs in [stage.jobs for stage in self._stages.values() if stage.jobs is not None]:
                jobs.prepare(brokers=brokers).start()
            with contextlib.suppress(AssertionError):
                wait_for("nothing left", lambda: self._left(verdicts) == 0, within=_SWEEP_LIMIT, every=1)
            for verdict in verdicts:
                verdict.left = self._stages[verdict.row.target].left()
                if verdict.left:
                    verdict.problems.append(f"{verdict.left} left")
                    verdict.log += brokers.show()
        finally:
            brokers.close()

    def _left(self, verdicts: Sequence[Verdict]) -> int:
        return sum(self._stages[verdict.row.target].left() for verdict in verdicts)


def _by_execution(readers: Sequence[Reader]) -> list[list[Reader]]:
    found: dict[str, list[Reader]] = {}
    for reader in readers:
        found.setdefault(reader.name, []).append(reader)
    return list(found.values())


def _accounts(
    readers: Sequence[Reader], judged: Sequence[Reader], written: Mapping[Instance, Sequence[Line]]
) -> list[Account]:
    """Of the readers of one execution. The pods of others are theirs; one that nobody was told of is everybody's."""
    own = {pod for reader in readers for pod in reader.pods}
    others = {pod for reader in judged for pod in reader.pods} - own
    lines = {instance: some for instance, some in written.items() if instance.pod not in others}
    return [reader.account(lines) for reader in readers]


def ending(reader: Reader) -> str:
    """State and failure class as the reader was told, or what kept it from that."""
    if reader.error is not None:
        return f"{type(reader.error).__name__} {getattr(reader.error, 'reason', '')}".strip()
    last = reader.story.events[-1] if reader.story.events else None
    if not isinstance(last, podbroker.End):
        return "no end"
    outcome = last.execution.outcome
    failure = outcome.failure_class if outcome is not None else None
    return " ".join(str(one) for one in (last.execution.state, failure) if one is not None)


def marks(reader: Reader) -> str:
    """The markers that the reader was given."""
    reasons = [gap.reason.value for gap in reader.story.gaps]
    counted = [f"{reasons.count(reason)} x {reason}" for reason in sorted(set(reasons))]
    return f"markers: {', '.join(counted)}" if counted else ""
