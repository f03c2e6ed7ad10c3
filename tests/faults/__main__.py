"""`python -m faults [-k WORDS] [--core] [--page FILE]`, on the cluster of the environment."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from cluster.handle import Cluster
from e2e.site import Site
from faults import matrix
from faults.batch import ROWS as BATCH
from faults.beside import ROWS as BESIDE
from faults.row import Length
from faults.rows_alone import ROWS as ALONE
from faults.runner import Runner
from faults.witness import Witness


def main() -> int:
    """Plays the rows and prints the matrix."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument(
        "-k", metavar="WORDS", default="", help="only rows whose name holds one of these, with `|` between"
    )
    parser.add_argument("--core", action="store_true", help="only the short rows")
    parser.add_argument("--page", type=Path, help="write the page there, with the rows that were played")
    parser.add_argument("--list", action="store_true", help="only print the names")
    options = parser.parse_args()

    words = [word.strip().lower() for word in options.k.split("|")]
    rows = [row for row in (*BESIDE, *BATCH, *ALONE) if any(word in row.fault.lower() for word in words)]
    if options.core:
        rows = [row for row in rows if row.length is Length.CORE]
    if options.list:
        print("\n".join(row.fault for row in rows))
        return 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        site = Site(cluster=Cluster.from_environment(), folder=Path(folder))
        if not site.is_own:
            sys.exit("faults: parts of the cluster are stopped, so this runs on one that the harness has started")
        logs = Path(site.cluster.facts["pod_logs"])
        with Witness(logs=logs, kept=Path(site.cluster.facts["folder"]) / "witness") as witness:
            runner = Runner(site=site, witness=witness, folder=Path(folder), say=lambda line: print(line, flush=True))
            verdicts = runner.run(rows)
    for verdict in verdicts:
        if not verdict.holds:
            print(f"\n--- {verdict.row.fault}\n{verdict.log}")
    print(f"\n{matrix.text(verdicts)}\n")
    if options.page:
        where = f"one node, {os.cpu_count()} processors, {platform.system()} {platform.machine()}"
        options.page.write_text(matrix.page(verdicts, where=where, rows_in_all=len(BESIDE) + len(BATCH) + len(ALONE)))
    broken = sum(not verdict.holds for verdict in verdicts)
    print(f"{len(verdicts) - broken} passed, {broken} failed in {time.monotonic() - begin:.1f}s", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
