"""Runs the unit tests of the provider beside older Airflows and Kubernetes providers, and writes what came of it.

Each row has an environment of its own in the cache, made of the pins in `compat`; the newest is the environment of all
other tests. The built package lies in front of it, as everywhere, so that one build is tested in all of them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import environment
from levels import Count, read_counts

TESTS: Final = Path(__file__).resolve().parent
BINDINGS: Final = TESTS.parent / "python-bindings"
PINS: Final = (
    *sorted((TESTS / "compat").glob("airflow-*.txt")),
    environment.REQUIREMENTS,
    *sorted((TESTS / "compat").glob("amazon-*.txt")),
)
#: Skips that have no reason from elsewhere are failures.
NOTHING_MISSING: Final = ("-p", "no_skips")
BEGIN: Final = "<!-- make compat writes what follows -->\n"
END: Final = "<!-- until here -->"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one environment."""

    airflow: str
    provider: str
    amazon: str
    """The version of Amazon's provider, which is optional."""
    count: Count

    def cells(self) -> str:
        """The row as a table of a page has it."""
        python = ".".join(map(str, sys.version_info[:2]))
        counts = f"{self.count.passed} | {self.count.failed} | {self.count.skipped}"
        return f"| {self.airflow} | {self.provider} | {self.amazon or 'none'} | {python} | {counts} |"


def found(pins: Path, package: str) -> str:
    """The version of a package that the pins name; empty if they do not."""
    line = re.search(rf"^{re.escape(package)}==(\S+)$", pins.read_text(), re.MULTILINE)
    return line[1] if line is not None else ""


def version(pins: Path, package: str) -> str:
    """The version of a package that the pins must name."""
    if not (named := found(pins, package)):
        raise SystemExit(f"compat: {pins.name} does not pin {package}")
    return named


def run(pins: Path, cache: Path) -> Row:
    """Runs the tests in one environment."""
    folder = environment.ensure(cache, pins)
    row = Row(
        airflow=version(pins, "apache-airflow"),
        provider=version(pins, "apache-airflow-providers-cncf-kubernetes"),
        amazon=found(pins, "apache-airflow-providers-amazon"),
        count=Count(),
    )
    print(f"compat: Airflow {row.airflow}, Kubernetes provider {row.provider}", flush=True)
    # Tests that use what a version does not have are skipped, and say so.
    strict = () if pins.name.startswith("airflow-") else NOTHING_MISSING
    command = [str(folder / "bin" / "python"), "-m", "pytest", "-q", "--color=no", "-rfEs", *strict, "tests/airflow"]
    with subprocess.Popen(command, cwd=BINDINGS, env=os.environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if counts := read_counts(line):
                row.count.add(counts)
    if process.returncode != 0 and row.count.failed == 0:
        row.count.failed += 1
    return row


def write_page(page: Path, rows: list[Row]) -> None:
    """Puts the table into the page, between its marks."""
    table = [
        "| Airflow | Kubernetes provider | Amazon provider | Python | passed | failed | left out |",
        "|---|---|---|---|---|---|---|",
        *(row.cells() for row in rows),
    ]
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n" + "\n".join(table) + f"\n\n{END}{after}")


def main() -> int:
    """`compatibility.py [--page PAGE]`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    rows = [run(pins, Path(os.environ["PODBROKER_CACHE"])) for pins in PINS]
    for row in rows:
        print(row.cells())
    if options.page is not None:
        write_page(options.page, rows)
    failed = sum(row.count.failed for row in rows)
    print(f"{sum(row.count.passed for row in rows)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
