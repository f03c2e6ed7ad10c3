"""What every part of the benchmark is given: the cluster, a folder, places for pods, and a way to say how far it is."""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from e2e.broker import Brokers
from e2e.site import MADE_BY, Namespace
from e2e.waiting import wait_for

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from e2e.site import Site

_BEGIN = time.monotonic()


def say(text: str) -> None:
    """Progress, with the seconds since the start."""
    print(f"[{time.monotonic() - _BEGIN:5.0f} s] {text}", file=sys.stderr, flush=True)


class Part(Protocol):
    """One part of the benchmark: a module of this package."""

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """Adds what makes the part smaller or larger; names are unique over all parts."""

    def measure(self, stage: Stage, options: argparse.Namespace) -> str:
        """Measures; returns Markdown: headings of level 2, tables, and a list of the conditions that are its own."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a part of the benchmark is played."""

    site: Site
    folder: Path
    """Of this part alone; gone after it."""

    @contextlib.contextmanager
    def namespace(self) -> Iterator[Namespace]:
        """A namespace for pods, which is gone afterwards with all that is in it."""
        with self.site.namespace(prefix="pb-bench") as namespace:
            yield namespace

    def namespace_that_stays(self) -> Namespace:
        """A namespace for thousands of pods: taking them away takes longer than measuring, and the cluster ends."""
        name = f"pb-bench-{secrets.token_hex(4)}"
        self.site.core.create_namespace({"metadata": {"name": name, "labels": MADE_BY}})
        wait_for("the default service account", lambda: self.site.has_service_account(name))
        return Namespace(site=self.site, name=name)

    def requests(self, user: str, *, since: datetime) -> int:
        """The requests of a user that ended, or began to be answered, since then."""
        found = self.site.cluster.requests(user)
        return sum(datetime.fromisoformat(one["stageTimestamp"]) >= since for one in found)

    @contextlib.contextmanager
    def brokers(self) -> Iterator[Brokers]:
        """Starts brokers; they end with the block."""
        brokers = Brokers(site=self.site, folder=Path(tempfile.mkdtemp(prefix="brokers-", dir=self.folder)))
        try:
            yield brokers
        finally:
            brokers.close()
