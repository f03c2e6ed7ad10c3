"""`python -m kills [-k WORDS] [--page FILE] [--list]`, on the cluster of the environment."""

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
from kills import everything, matrix
from kills.rows import ROWS
from kills.runner import Runner
from kills.stage import staged

#: The name of the DAG with everything, beside those of the rows.
EVERYTHING = "everything"


def main() -> int:
    """Plays the rows and prints the matrix."""
    parser = argparse.ArgumentParser(prog="kills", description=__doc__)
    parser.add_argument(
        "-k", metavar="WORDS", default="", help="only rows whose name holds one of these, with `|` between"
    )
    parser.add_argument("--page", type=Path, help="write the page there, with the rows that were played")
    parser.add_argument("--list", action="store_true", help="only print the names")
    options = parser.parse_args()

    words = [word.strip().lower() for word in options.k.split("|")]
    rows = [row for row in ROWS if any(word in row.name for word in words)]
    with_everything = any(word in EVERYTHING for word in words)
    if options.list:
        print("\n".join([*(row.name for row in rows), *([EVERYTHING] if with_everything else [])]))
        return 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        site = Site(cluster=Cluster.from_environment(), folder=Path(folder))
        if not site.is_own:
            sys.exit("kills: pods look at a folder of this machine, so this runs on a cluster that the harness started")
        with staged(site, Path(folder)) as stage:
            print(f"kills: Airflow runs after {time.monotonic() - begin:.0f} s", flush=True)
            verdicts = Runner(stage=stage, say=lambda line: print(line, flush=True)).run(rows)
            together = everything.play(stage) if with_everything else None
            broken = sum(not verdict.holds for verdict in verdicts) + (together is not None and not together.holds)
            if broken:
                for part in ("scheduler", *stage.airflow.triggerer_names):
                    print(f"--- {part}\n{stage.airflow.log(part)[-4000:]}")
    for verdict in verdicts:
        if not verdict.holds:
            print(f"\n--- {verdict.row.name}\n{verdict.log}")
    for name, log in together.logs.items() if together is not None else ():
        print(f"\n--- everything: {name}", *log, sep="\n")
    print(f"\n{matrix.text(verdicts, together)}\n")
    if options.page:
        where = f"one node, {os.cpu_count()} processors, {platform.system()} {platform.machine()}"
        options.page.write_text(matrix.page(verdicts, together, where=where, rows_in_all=len(ROWS)))
    played = len(verdicts) + (together is not None)
    print(f"{played - broken} passed, {broken} failed in {time.monotonic() - begin:.1f}s", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
