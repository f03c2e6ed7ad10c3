"""`python -m bench [PART ...]`: measures and prints; started by `make bench`. Without a part: all of them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from kubernetes import client as kubernetes

from bench import archive, batch, deferred, identity, logs, operators, scale, submits, tasklogs
from bench.stage import Part, Stage, say
from bench.tables import conditions
from cluster.handle import Cluster
from e2e.site import Site

#: In the order in which they run. The last ones leave thousands of pods behind.
PARTS: Final[dict[str, Part]] = {
    "operators": operators,
    "identity": identity,
    "logs": logs,
    "tasklogs": tasklogs,
    "archive": archive,
    "deferred": deferred,
    "submits": submits,
    "scale": scale,
    "batch": batch,
}


def use_release_build(folder: Path) -> None:
    """Lets the brokers be those with optimisations: `PODBROKER_OUT` says where the build is."""
    built = Path(os.environ["PODBROKER_OUT"]) / "bin"
    (folder / "bin").mkdir()
    programs = {"podbroker": "podbroker-release", "podbroker-bench": "podbroker-bench", "mint": "mint"}
    for name, program in programs.items():
        if not (built / program).exists():
            sys.exit(f"bench: {built / program} is missing: use `make bench`")
        (folder / "bin" / name).symlink_to(built / program)
    os.environ["PODBROKER_OUT"] = str(folder)


def parse() -> argparse.Namespace:
    """The parts and their sizes."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure ours beside its peers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    for name, part in PARTS.items():
        part.add_options(parser.add_argument_group(name))
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return options


def main() -> int:
    """Measures on the cluster of this run; prints the tables of each part as soon as it is done."""
    options = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = Cluster.from_environment()
    if not cluster.facts["started"]:
        print("bench: needs the cluster of the harness: requests are counted in its audit log, and times are compared")
        print("bench: with the node's clock. Unset PODBROKER_KUBECONFIG.")
        return 2
    with tempfile.TemporaryDirectory(prefix="podbroker-bench-") as name:
        folder = Path(name)
        use_release_build(folder)
        site = Site(cluster=cluster, folder=folder)
        for part in [part for part in PARTS if part in options.parts] or PARTS:
            own = folder / part
            own.mkdir()
            say(f"part {part}")
            before = os.getloadavg()[0]
            text = PARTS[part].measure(Stage(site=site, folder=own), options)
            load = f"load average (1 min): {before:.1f} at the start of this part, {os.getloadavg()[0]:.1f} at its end"
            print(f"\n{text}\n- {load}", flush=True)
        kubernetes_version = kubernetes.VersionApi(site.api).get_code().git_version
    print(f"\n## Conditions\n\n{conditions(kubernetes=kubernetes_version)}")
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        say("interrupted; everything is taken down")
        code = 130
    sys.exit(code)
