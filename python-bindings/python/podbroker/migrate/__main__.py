"""``python -m podbroker.migrate`` and ``podbroker-migrate``."""

from __future__ import annotations

import sys

__all__ = ["run"]


def run() -> int:
    """Run the command, or say what it needs."""
    try:
        from podbroker.migrate.command import main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "libcst":
            raise
        print("podbroker-migrate needs libcst: pip install 'podbroker[migrate]'", file=sys.stderr)  # noqa: T201
        return 2
    return main()


if __name__ == "__main__":
    sys.exit(run())
