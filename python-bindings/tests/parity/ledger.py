"""What is expected of every test: that it passes, or that it fails for the reason that its category gives.

``expected.toml`` names the tests that fail, by category, and says how many pass. A name without a parameter stands for
all parameters of a test.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FILE = Path(__file__).with_name("expected.toml")
PREFIX = "unit/cncf/kubernetes/"
UNSORTED = "unsorted"
"""The category that a recording gives to a failure that nobody has looked at. It is refused."""

HEADER = """\
# What upstream's tests are expected to say of our classes; `python -m parity --record` writes it anew.
# `passed` may only grow, unless `--fewer` is said. A test below fails for the reason of its category; one
# that passes has to be taken out.
"""


class FewerError(Exception):
    """A recording would write down that fewer tests pass than before; the message names the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """Why tests are waived."""

    name: str
    reason: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What ``expected.toml`` says."""

    provider: str
    passed: Mapping[str, int]
    """How many tests of each file pass."""
    skipped: tuple[str, ...]
    """Tests that skip themselves on this version of Airflow."""
    categories: tuple[Category, ...]
    _by_test: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a category without a reason, and a test that stands in two."""
        for category in self.categories:
            if category.name == UNSORTED or not category.reason.strip():
                raise ValueError(f"{FILE.name}: the category {category.name!r} says no reason")
            for test in category.tests:
                if test in self._by_test:
                    raise ValueError(f"{FILE.name}: {test} stands in {self._by_test[test]!r} and {category.name!r}")
                self._by_test[test] = category.name

    def category_of(self, test: str) -> str | None:
        """Say in which category a test is waived."""
        return self._by_test.get(test) or self._by_test.get(whole(test))

    def vanished(self, collected: Iterable[str]) -> list[str]:
        """List what is written down and does not exist."""
        known = set(collected)
        known |= {whole(test) for test in known}
        return sorted(test for test in (*self._by_test, *self.skipped) if test not in known)


def whole(test: str) -> str:
    """Leave out a test's parameter."""
    return test.partition("[")[0]


def short(nodeid: str) -> str:
    """Leave out what all ids have in common."""
    return nodeid.removeprefix(PREFIX)


def file_of(test: str) -> str:
    """Give the file of a test."""
    return test.partition("::")[0]


def load(path: Path = FILE, *, recording: bool = False) -> Ledger:
    """Read the file; ``recording`` forgets what an earlier recording could not sort."""
    read = tomllib.loads(path.read_text())
    if recording:
        read.get("category", {}).pop(UNSORTED, None)
    return Ledger(
        provider=read["provider"],
        passed=read["passed"],
        skipped=tuple(read["skipped"]),
        categories=tuple(
            Category(name=name, reason=table["reason"], tests=tuple(table["tests"]))
            for name, table in read.get("category", {}).items()
        ),
    )


def record(results: Mapping[str, str], old: Ledger, path: Path = FILE, *, fewer: bool = False) -> list[str]:
    """Write the file anew from what happened (``passed``, ``failed``, ``skipped``); give what is unsorted.

    Raises:
        FewerError: Fewer tests of a file pass than before, and ``fewer`` does not allow that; nothing is written.

    """
    failed = [test for test, outcome in results.items() if outcome == "failed"]
    tests: dict[str, list[str]] = defaultdict(list)
    for test in failed:
        tests[old.category_of(test) or UNSORTED].append(test)
    passed = Counter(file_of(test) for test, outcome in results.items() if outcome == "passed")
    shrunk = [f"{name} ({before} to {passed[name]})" for name, before in old.passed.items() if passed[name] < before]
    if shrunk and not fewer:
        raise FewerError(f"fewer tests pass than before, --fewer writes that down: {', '.join(sorted(shrunk))}")
    categories = [
        Category(name=each.name, reason=each.reason, tests=_folded(tests.pop(each.name, []), results))
        for each in old.categories
    ]
    unsorted = tests.pop(UNSORTED, [])
    if unsorted:
        categories.append(Category(name=UNSORTED, reason="", tests=_folded(unsorted, results)))
    skipped = [test for test, outcome in results.items() if outcome == "skipped"]
    files = {file_of(test): passed[file_of(test)] for test in results}
    path.write_text(_written(old.provider, files, skipped, [each for each in categories if each.tests]))
    return unsorted


def _folded(tests: list[str], results: Mapping[str, str]) -> tuple[str, ...]:
    """Name a test once whose parameters all fail in the same category."""
    mine = Counter(map(whole, tests))
    everyone = Counter(map(whole, results))
    names = {whole(test) if mine[whole(test)] == everyone[whole(test)] else test for test in tests}
    return tuple(sorted(names))


def _written(provider: str, passed: Mapping[str, int], skipped: list[str], categories: list[Category]) -> str:
    blocks = [HEADER, f"provider = {json.dumps(provider)}"]
    blocks.append(f"skipped = {_list(skipped)}")
    blocks.append("\n[passed]\n" + "\n".join(f"{json.dumps(name)} = {passed[name]}" for name in sorted(passed)))
    for category in categories:
        reason = "\n".join(textwrap.wrap(" ".join(category.reason.split()), 118))
        blocks.append(f'\n[category.{category.name}]\nreason = """\n{reason}"""\ntests = {_list(category.tests)}')
    return "\n".join(blocks) + "\n"


def _list(tests: Iterable[str]) -> str:
    rows = [f"  {json.dumps(test)}," for test in tests]
    return "\n".join(["[", *rows, "]"]) if rows else "[]"
