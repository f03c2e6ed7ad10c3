"""The chain from an Airflow task to a running pod: walked through the broker, drawn for the task log.

Every link is one ``Check``. The broker's own come from ``CheckTarget``; what lies before it (the Airflow connection,
whether anybody answers) is found out here and told in the same form. A box of the picture stands for one party of the
chain and holds the links that are about it. Nothing is created, and no credential is shown.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podbroker import (
    Check,
    CheckStatus,
    InvalidRequestError,
    NotAllowedError,
    NotAuthenticatedError,
    NotFoundError,
    PodbrokerError,
    TargetPlace,
)
from podbroker.airflow._compat import AirflowException
from podbroker.airflow.exceptions import RemotePodChainBroken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podbroker.airflow.hook import PodbrokerHook

__all__ = ["Chain", "readable", "told", "walk"]

WIDTH = 96
"""Columns of text in a box at most: what a log view shows beside the time and the level."""

NARROW = 56
"""Columns of text at least, so that a chain without long names looks the same every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    title: str
    links: tuple[str, ...]
    before: str
    """How the box before reaches this one."""


_BOXES = (
    _Box(title="Airflow task", links=("connection",), before=""),
    _Box(title="podbroker", links=("broker", "caller", "target"), before="calls"),
    _Box(title="workload identity", links=("workload-identity",), before="runs as"),
    _Box(title="role", links=("role",), before="assumes"),
    _Box(title="cluster", links=("cluster", "connect"), before="connects to"),
    _Box(title="Kubernetes user", links=("token", "identity"), before="is known as"),
    _Box(title="permissions", links=("permission",), before="may"),
    _Box(title="pod", links=("create",), before="creates (tried without creating)"),
)
_OURS = 2
"""How many boxes come before the part of the chain that depends on the target's kind."""

_WORDS = {
    CheckStatus.PASSED: "ok",
    CheckStatus.FAILED: "FAILED",
    CheckStatus.SKIPPED: "skipped",
    CheckStatus.WARNING: "warning",
    CheckStatus.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What was found at each link, in order."""

    checks: tuple[Check, ...]

    @property
    def broken(self) -> Check | None:
        """The first broken link; None when all hold that a pod needs."""
        return next((check for check in self.checks if check.status is CheckStatus.FAILED), None)

    def picture(self) -> tuple[str, ...]:
        """Draw one box for each party, the first at the top; one item is one line of a log."""
        drawn = self._boxes()
        longest = max((len(line) for _, checks in drawn for line in _lines(checks, WIDTH)), default=0)
        inner = max(NARROW, longest)
        lines: list[str] = []
        for box, checks in drawn:
            status = _status(checks)
            if lines:
                skipped = status is CheckStatus.SKIPPED
                lines += [f"{'╎' if skipped else '│':>4} {box.before}", f"{'╎' if skipped else '▼':>4}"]
            word = _WORDS[status]
            lines.append(f"┌─ {box.title} {'─' * (inner - len(box.title) - len(word) - 4)} {word} ─┐")
            lines += [f"│ {line:<{inner}} │" for line in _lines(checks, WIDTH)]
            lines.append(f"└{'─' * (inner + 2)}┘")
        return tuple(lines)

    def raise_if_broken(self) -> None:
        """Raise ``RemotePodChainBroken`` with the first broken link and its fix."""
        check = self.broken
        if check is not None:
            error = RemotePodChainBroken(told(check))
            error.link, error.subject, error.fix = check.link, check.subject, check.fix
            raise error

    def _boxes(self) -> list[tuple[_Box, list[Check]]]:
        """Give each party its links; a party that this kind of target does not have is left out."""
        known = {link for box in _BOXES for link in box.links}
        boxes = [(box, [check for check in self.checks if check.link in box.links]) for box in _BOXES]
        # The kind of a target is not known while the way to the broker, or to the target in it, is broken.
        early = any(_status(checks) is CheckStatus.FAILED for _, checks in boxes[:_OURS])
        drawn = [(box, checks) for box, checks in boxes if checks or early]
        # A newer broker may have links that this version does not know.
        others: dict[str, list[Check]] = {}
        for check in self.checks:
            if check.link not in known:
                others.setdefault(check.link, []).append(check)
        return drawn + [(_Box(title=link, links=(link,), before="then"), checks) for link, checks in others.items()]


def walk(hook: PodbrokerHook, *, asker: str = "") -> Chain:
    """Walk the chain as far as it holds. ``asker`` says who asks, for the first box.

    Never raises for a broken link, wherever it is. Without a target it ends at the broker.
    """
    return Chain(checks=tuple(_walk(hook, asker=asker)))


def told(check: Check) -> str:
    """Say in one sentence which link is broken, why, and what to do."""
    words = " ".join(filter(None, (check.link, check.subject, "failed:", check.detail)))
    return f"{words}. Fix: {check.fix}" if check.fix else words


def readable(target: str | TargetPlace) -> str:
    """Name a target for a person."""
    if isinstance(target, str):
        return target
    parts = {name: getattr(target, name) for name in ("cluster", "region", "namespace", "role_arn")}
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)


def _walk(hook: PodbrokerHook, *, asker: str) -> Iterator[Check]:
    connection = f"connection {hook.podbroker_conn_id}"
    try:
        client, target = hook.conn, hook.selector
        detail = f"{connection}: {hook.address}"
    except (AirflowException, PodbrokerError, ValueError, OSError) as error:
        fix = f"create or mend the Airflow {connection} (type podbroker: host, port, token)"
        yield _failed("connection", str(error), fix)
        return
    yield _passed("connection", f"{asker}, {detail}" if asker else detail)
    try:
        info = client.server_info()
    except PodbrokerError as error:
        yield _unanswered(error, hook)
        return
    yield _passed("broker", f"version {info.version}, instance {info.instance}")
    if target is None:
        yield _passed("caller", f"subject {info.caller_subject}, tenant {info.caller_tenant}")
        return
    try:
        yield from client.check(target)
    except (InvalidRequestError, NotFoundError, NotAllowedError) as error:
        what = "; ".join(violation.description for violation in error.field_violations) or str(error)
        fix = "name one target that the broker has: `podbroker targets` lists those that the caller may use"
        yield _failed("target", f"{readable(target)}: {what}", fix)
    except PodbrokerError as error:
        yield _unanswered(error, hook)


def _unanswered(error: PodbrokerError, hook: PodbrokerHook) -> Check:
    if isinstance(error, NotAuthenticatedError):
        fix = f"put a token that the broker knows into the password of the Airflow connection {hook.podbroker_conn_id}"
        return _failed("caller", str(error), fix)
    fix = f"see that the broker runs, that the worker may reach {hook.address}, and that its certificate is trusted"
    return _failed("broker", str(error), fix)


def _passed(link: str, detail: str) -> Check:
    return Check(link=link, subject="", status=CheckStatus.PASSED, detail=detail, fix="")


def _failed(link: str, detail: str, fix: str) -> Check:
    return Check(link=link, subject="", status=CheckStatus.FAILED, detail=detail, fix=fix)


def _status(checks: list[Check]) -> CheckStatus:
    """Sum up the links of a box: the worst of them counts, and a box without links was not come to."""
    found = {check.status for check in checks}
    for status in (CheckStatus.FAILED, CheckStatus.UNKNOWN, CheckStatus.WARNING, CheckStatus.PASSED):
        if status in found:
            return status
    return CheckStatus.SKIPPED


def _lines(checks: list[Check], width: int) -> list[str]:
    """Say what was found at the links of a box. Skipped links are silent; the box's title says it."""
    lines: list[str] = []
    for status, group in _grouped(checks):
        if status is CheckStatus.SKIPPED:
            continue
        if len(group) > 1:  # verbs with the same answer
            subjects = ", ".join(check.subject or check.link for check in group)
            lines += _wrapped(f"{subjects}: {group[0].detail}" if group[0].detail else subjects, width)
            continue
        (check,) = group
        words = ": ".join(filter(None, (check.subject, check.detail)))
        loud = status in (CheckStatus.FAILED, CheckStatus.WARNING)
        lines += _wrapped(f"{_WORDS[status]} {words}" if loud else words, width)
        if check.fix:
            lines += _wrapped(f"fix: {check.fix}", width)
    return lines


def _grouped(checks: list[Check]) -> list[tuple[CheckStatus, list[Check]]]:
    """Put neighbours together that differ by nothing but their subject."""
    groups: list[tuple[CheckStatus, list[Check]]] = []
    for check in checks:
        last = groups[-1][1][-1] if groups else None
        alike = last is not None and (last.link, last.status, last.detail, last.fix) == (
            check.link,
            check.status,
            check.detail,
            check.fix,
        )
        if alike and check.subject:
            groups[-1][1].append(check)
        else:
            groups.append((check.status, [check]))
    return groups


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for part in text.splitlines():
        lines += textwrap.wrap(part, width, subsequent_indent="  ", break_on_hyphens=False)
    return lines
