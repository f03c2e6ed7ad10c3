"""A Python program that reads lines and does nothing with them: `python -m bench.reader ADDRESS NAME`."""

from __future__ import annotations

import json
import sys
import time

import podbroker


def main() -> None:
    """Reads to the end; prints how many lines there were, and when the first and the last of them came."""
    address, name = sys.argv[1:]
    lines, missing, first, last = 0, 0, 0, 0
    with podbroker.Client(address) as client:
        for event in client.watch(name):
            if isinstance(event, podbroker.LogChunk):
                last = time.time_ns()
                first = first or last
                # What a consumer does at the least: it goes through the lines.
                for _line in event.lines:
                    lines += 1
            elif isinstance(event, podbroker.LogGap):
                missing += max(1, event.lines_at_least)
    print(json.dumps({"lines": lines, "marked": missing, "first": first, "last": last}))


if __name__ == "__main__":
    main()
