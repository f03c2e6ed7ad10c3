"""Runs the levels of the test suite one after another and adds up what they say.

A level that fails does not stop the next, so that one run shows everything. A level whose output names no test counts
as one failure: nothing that should run may vanish silently. The last line is `N passed, N failed`.

Tests on the cluster share a small machine with a whole Kubernetes. A few that fail beside others are run once more, one
at a time; what passes then is named as such above the last line, with its first failure in the output: it is somebody's
to explain, and no reason to hold back everything else. What fails alone, or in numbers, has failed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TESTS: Final = ROOT / "tests"


@dataclass(frozen=True, kw_only=True)
class Level:
    """One command of the suite and where it runs."""

    argv: tuple[str, ...]
    folder: Path
    takes_arguments: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    #: Runs the tests that are named after it, one at a time; empty: what fails has failed.
    second_try: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Count:
    """Tests that passed, failed, or were left out although they should run here."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    #: Those that passed at the second try only.
    unsteady: list[str] = field(default_factory=list)

    def add(self, other: Count) -> None:
        """Adds up."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.unsteady += other.unsteady


PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no_skips")
ON_CLUSTER: Final = (sys.executable, "-m", "cluster", "run", "--")
#: Tests of the identity chain, which the level `e2e` runs with the rest.
IDENTITY: Final = tuple(
    f"e2e/test_{name}.py"
    for name in (
        *("identity", "identity_archive", "identity_broker", "identity_checks", "identity_secrets"),
        "manifests",
    )
)
LEVELS: Final = {
    "rust": Level(argv=("cargo", "test", "--locked", "--workspace", "--no-fail-fast"), folder=ROOT),
    "bindings": Level(argv=(*PYTEST, "tests"), folder=ROOT / "python-bindings", takes_arguments=True),
    # Upstream's own tests with our operator in the place of theirs.
    "parity": Level(
        argv=(sys.executable, "-m", "parity"), folder=ROOT / "python-bindings" / "tests", takes_arguments=True
    ),
    "manifests": Level(argv=(*PYTEST, "k8s"), folder=TESTS, takes_arguments=True),
    "cluster": Level(argv=(*PYTEST, "cluster", "test_levels.py"), folder=TESTS, takes_arguments=True),
    # Most of the time is spent waiting for pods and for sessions to end, so several files at a time.
    "e2e": Level(
        argv=(*ON_CLUSTER, *PYTEST, "-n", "5", "--dist", "loadfile", "e2e"),
        folder=TESTS,
        takes_arguments=True,
        second_try=(*ON_CLUSTER, *PYTEST),
    ),
    "identity": Level(argv=(*ON_CLUSTER, *PYTEST, *IDENTITY), folder=TESTS, takes_arguments=True),
    "faults": Level(
        argv=(*ON_CLUSTER, sys.executable, "-m", "faults"),
        folder=TESTS,
        takes_arguments=True,
        # Rotation and a lost node in seconds instead of minutes.
        environment=(
            ("PODBROKER_TEST_LOG_MAX_SIZE", "512Ki"),
            ("PODBROKER_TEST_LOG_MONITOR_INTERVAL", "3s"),
            ("PODBROKER_TEST_NODE_GRACE_PERIOD", "20s"),
        ),
    ),
    "kills": Level(argv=(*ON_CLUSTER, sys.executable, "-m", "kills"), folder=TESTS, takes_arguments=True),
}

CARGO_LINE: Final = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")
PYTEST_LINE: Final = re.compile(r"^(?:=+ )?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s")
#: A line of pytest's summary that names a test.
PYTEST_FAILED: Final = re.compile(r"^(FAILED|ERROR) (\S+\.py::.+?)(?: - .*)?$")
#: More than so many failures at once are no accident of the machine. A fixture that fails all tests of a file is one.
SECOND_TRIES: Final = 4
#: A heading at the end of cargo's output for a crate whose tests do not compile.
CARGO_BROKEN: Final = re.compile(r"^error: could not compile")


def read_counts(line: str) -> Count | None:
    """The counts that a summary line of cargo or pytest holds."""
    if found := CARGO_LINE.match(line):
        # An ignored Rust test is one that needs something by hand; it is not part of this suite.
        return Count(passed=int(found[1]), failed=int(found[2]))
    if found := PYTEST_LINE.match(line):
        words = {word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", found[1])}
        return Count(
            passed=words.get("passed", 0) + words.get("xfailed", 0),
            failed=words.get("failed", 0) + words.get("error", 0) + words.get("xpassed", 0),
            skipped=words.get("skipped", 0),
        )
    return None


def play(level: Level, argv: tuple[str, ...]) -> tuple[Count, dict[str, str]]:
    """Runs a command of a level, shows its output as it comes, counts, and names what failed, and by which failure."""
    total, names = Count(), dict[str, str]()
    with subprocess.Popen(
        argv,
        cwd=level.folder,
        env={**os.environ, **dict(level.environment)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                if counts := read_counts(line):
                    total.add(counts)
                elif found := PYTEST_FAILED.match(line.rstrip("\n")):
                    names.setdefault(found[2], found[2] if found[1] == "FAILED" else found[2].partition("::")[0])
        except BaseException as error:
            # The terminal has sent Ctrl-C to the whole group; a SIGTERM was for us alone. The level tidies up.
            if not isinstance(error, KeyboardInterrupt):
                process.terminate()
            process.wait()
            raise
    if process.returncode != 0 and total.failed == 0:
        print(f"ended with code {process.returncode} without naming a failed test", flush=True)
        total.failed += 1
    elif total.passed == 0 and total.failed == 0:
        print("no test ran", flush=True)
        total.failed += 1
    return total, names


def run(name: str, arguments: list[str]) -> Count:
    """Runs one level, and what deserves it a second time."""
    level = LEVELS[name]
    print(f"\n=== {name}", flush=True)
    begin = time.monotonic()
    total, failed = play(level, (*level.argv, *(arguments if level.takes_arguments else [])))
    if level.second_try and 0 < total.failed == len(failed) and len(set(failed.values())) <= SECOND_TRIES:
        print(f"=== {name}: {total.failed} failed beside others; once more, one at a time", flush=True)
        again, _ = play(level, (*level.second_try, *failed))
        if again.failed == 0 and again.passed == len(failed):
            total.unsteady = list(failed)
            total.passed, total.failed = total.passed + again.passed, 0
    print(f"=== {name}: {total.passed} passed, {total.failed} failed in {time.monotonic() - begin:.0f} s", flush=True)
    return total


def main() -> int:
    """`levels.py LEVEL... [-- ARGUMENTS FOR PYTEST]`."""
    names = sys.argv[1:]
    arguments: list[str] = []
    if "--" in names:
        split = names.index("--")
        names, arguments = names[:split], names[split + 1 :]
    # A job in the background inherits these ignored, and tests of Ctrl-C would wait for ever. Where we have handlers,
    # the tests start with the defaults.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    os.environ.setdefault("CARGO_TERM_COLOR", "never")
    total = Count()
    try:
        for name in names:
            total.add(run(name, arguments))
    except KeyboardInterrupt:
        print("\ninterrupted", flush=True)
        return 130
    for test in total.unsteady:
        print(f"\nunsteady, passed at the second try only: {test}", flush=True)
    print(f"\n{total.passed} passed, {total.failed} failed", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
