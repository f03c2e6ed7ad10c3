"""``python3 -m aws --help``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .server import NAMES, serve
from .state import State


def main() -> None:
    """Plays AWS until it is killed."""
    parser = argparse.ArgumentParser(prog="python3 -m aws", description="Doubles of AWS on 127.0.0.1.")
    parser.add_argument("--folder", type=Path, required=True, help="where the state is kept")
    parser.add_argument("--certificate", type=Path, required=True, help="of sts.*.amazonaws.com, PEM")
    parser.add_argument("--key", type=Path, required=True)
    for name in NAMES:
        parser.add_argument(f"--{name}-port", type=int, required=True)
    options = parser.parse_args()
    ports = {name: getattr(options, f"{name}_port") for name in NAMES}
    serve(State(options.folder), ports, certificate=options.certificate, key=options.key)


if __name__ == "__main__":
    main()
