"""Builds the programs of the cluster, each once per machine.

The Go module in ``program/`` is all of Kubernetes and etcd in one binary; ``kwok/`` is for the benchmark alone, and is
built only when that asks for it. Compiling takes minutes, so the result is kept in the user's cache under a name made
from everything that decides its content, and a second clone finds it there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .errors import ClusterError
from .settings import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

KUBERNETES_VERSION = "v1.34.4"

SOURCE = Path(__file__).parent / "program"

_VERSION_PACKAGE = "k8s.io/component-base/version"

#: The linker sets the version, because clients and the kubelet compare it; without, it is v0.0.0-master.
_LINKER_FLAGS = " ".join(
    [
        "-s -w",
        f"-X {_VERSION_PACKAGE}.gitVersion={KUBERNETES_VERSION}",
        f"-X {_VERSION_PACKAGE}.gitMajor=1",
        f"-X {_VERSION_PACKAGE}.gitMinor=34",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program that is compiled from a Go module in this folder."""

    name: str
    #: The module's folder.
    source: Path
    #: What to compile, as `go build` names it.
    package: str
    flags: tuple[str, ...]
    #: What is built and how long it takes, for whoever waits.
    what: str


CLUSTER = Program(
    name="cluster",
    source=SOURCE,
    package=".",
    flags=("-trimpath", "-buildvcs=false", "-ldflags", _LINKER_FLAGS),
    what=f"Kubernetes {KUBERNETES_VERSION}, etcd and the authenticator: about 10 minutes on 2 cores, once",
)

#: Without cgo the binary is smaller, is static, and needs no C compiler; no component misses it.
_ENVIRONMENT = {"CGO_ENABLED": "0"}

#: Seconds between two lines of progress: often enough to see life, rarely enough for a CI log.
_PROGRESS_INTERVAL = 15.0

_HOW_TO_GET_GO = "install Go 1.21 or newer (https://go.dev/dl); it fetches the version that program/go.mod asks for"


def program_path(program: Program = CLUSTER) -> Path:
    """Where the program of this checkout's sources is, or will be."""
    digest = hashlib.sha256()
    for path in (*sorted(program.source.glob("*.go")), program.source / "go.mod", program.source / "go.sum"):
        digest.update(path.read_bytes())
    digest.update(repr((program.flags, sorted(_ENVIRONMENT.items()))).encode())
    return cache_folder() / f"{program.name}-{digest.hexdigest()[:16]}"


def build(program: Program = CLUSTER) -> Path:
    """Returns the program, after building it if the cache has none."""
    target = program_path(program)
    if target.exists():
        return target
    go = _find_go(program)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _build_lock(target.parent / "build.lock"):
        for abandoned in target.parent.glob(f"{program.name}-*.partial-*"):
            abandoned.unlink()
        # Another clone may have built it while this one waited for the lock.
        if not target.exists():
            _compile(go, program, target)
    return target


def _find_go(program: Program) -> str:
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise ClusterError(f"Go is missing: {_HOW_TO_GET_GO}")
    # Run beside go.mod, `go version` also resolves the toolchain which that file asks for.
    asked = subprocess.run([go, "version"], cwd=program.source, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise ClusterError(f"Go does not work here: {asked.stderr.strip()}\n{_HOW_TO_GET_GO}")
    return go


@contextmanager
def _build_lock(path: Path) -> Iterator[None]:
    """One build at a time per cache: two would compile the same and need several GiB of memory each to link."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another build of a program for the cluster is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(go: str, program: Program, target: Path) -> None:
    _say(f"building {program.what}")
    environment = {**os.environ, **_ENVIRONMENT}
    partial = target.with_suffix(f".partial-{os.getpid()}")
    start = time.monotonic()
    try:
        total = _count_packages(go, program, environment)
        command = [go, "build", "-v", *program.flags, "-o", str(partial), program.package]
        with subprocess.Popen(
            command, cwd=program.source, env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            try:
                complaints = _follow(process.stderr, total, start)
            except BaseException:
                # Else leaving this block would wait for the build's end.
                process.terminate()
                raise
        if process.returncode != 0:
            raise ClusterError(f"{program.name} does not build:\n" + "\n".join(complaints[-30:]))
        # The name appears only with the complete file behind it.
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    _say(f"built {target} in {time.monotonic() - start:.0f} s")


def _count_packages(go: str, program: Program, environment: dict[str, str]) -> int:
    """How many packages there are to compile at most. This also downloads the modules, which can take a minute."""
    _say("fetching Go modules")
    listing = subprocess.run(
        [go, "list", "-deps", program.package],
        cwd=program.source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        raise ClusterError(f"the modules of {program.name} cannot be fetched:\n{listing.stderr.strip()}")
    return len(listing.stdout.splitlines())


def _follow(stream: IO[str], total: int, start: float) -> list[str]:
    """Prints progress until `go build -v` is done; returns the lines that do not name a package."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    compiled, due = 0, start + _PROGRESS_INTERVAL
    others: list[str] = []
    while True:
        try:
            line = lines.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            _say(f"{time.monotonic() - start:.0f} s, {compiled} of at most {total} packages compiled")
            due += _PROGRESS_INTERVAL
            continue
        if line is None:
            return others
        # A compiled package is one word; compiler errors and "go: downloading" lines have several.
        if line and " " not in line:
            compiled += 1
        else:
            others.append(line)


def _say(text: str) -> None:
    print(f"cluster: {text}", file=sys.stderr, flush=True)
