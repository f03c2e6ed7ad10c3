"""The processes of a measurement: what they take of the machine, and the measuring clients of `driver`."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from bench.stage import Stage

_TICKS: Final = os.sysconf("SC_CLK_TCK")
#: Seconds until a driver must have ended, or must be ready. Long measurements on a busy machine come close to it.
LIMIT: Final = 900.0


def processor_seconds(pid: int) -> float:
    """What a process has used of the processors so far, in user and kernel mode."""
    # After the name, which may hold anything: state is field 3, utime and stime are 14 and 15 (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process: all that is resident, the part of it that is no file's, and the largest that it ever was."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+) kB", status, re.MULTILINE)}
    return {
        "resident": kilobytes["VmRSS"] * 1024,
        "anonymous": kilobytes["RssAnon"] * 1024,
        "largest": kilobytes["VmHWM"] * 1024,
    }


@dataclass(kw_only=True)
class Meter:
    """What a process takes of the processors in the block, and the seconds that the block took."""

    pid: int
    processors: float = 0.0
    seconds: float = 0.0
    _begin: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def __enter__(self) -> Self:
        """Begins."""
        self._begin = processor_seconds(self.pid), time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends."""
        processors, begin = self._begin
        self.processors, self.seconds = processor_seconds(self.pid) - processors, time.monotonic() - begin

    @property
    def share(self) -> float:
        """Of one processor, 1 is all of it."""
        return self.processors / self.seconds


def driver_program() -> str:
    """The measuring client; `make bench` builds it."""
    return str(Path(os.environ["PODBROKER_OUT"]) / "bin/podbroker-bench")


def access(stage: Stage, user: str) -> list[str]:
    """The arguments that let a driver ask the API server in the name of a user of its own."""
    facts = stage.site.cluster.facts
    stage.site.user(user)
    files = Path(facts["folder"]) / "pki" / f"user-{user}"
    return [
        f"--server={facts['server']}",
        f"--authority={facts['certificate_authority']}",
        f"--certificate={files}.crt",
        f"--key={files}.key",
    ]


class Driver:
    """A measuring client that runs beside this process; `with` ends it, however the block ended."""

    def __init__(
        self,
        *arguments: str,
        stdin: int | None = None,
        program: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts it, or another program that talks as it does. The kernel ends it when we die."""
        self._errors: list[bytes] = []
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *(program or [driver_program()]), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._what = arguments[0]
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        """Is itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def wait_ready(self, word: str = "ready") -> None:
        """Waits until it says the word: what shall be measured may begin, or is over."""
        line = self._line()
        if line != f"{word}\n".encode():
            raise AssertionError(f"{self._what} is not {word}: {line!r} {self._said()}")

    def end(self) -> None:
        """Tells it to report what it has."""
        self._process.terminate()

    def report(self) -> dict[str, Any]:
        """What it has measured, once it has ended."""
        line = self._line()
        if self._process.wait(timeout=LIMIT) != 0 or not line:
            raise AssertionError(f"{self._what} failed: {self._said()}")
        report: dict[str, Any] = json.loads(line)
        return report

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        # A report is one line that is written at once, so a line is there soon after its first byte.
        if not select.select([self._process.stdout], [], [], LIMIT)[0]:
            raise AssertionError(f"{self._what} said nothing for {LIMIT:.0f} s: {self._said()}")
        return self._process.stdout.readline()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    def _said(self) -> str:
        self._reader.join(timeout=1)
        return b"".join(self._errors).decode(errors="replace")[-2000:]


def drive(*arguments: str) -> dict[str, Any]:
    """Runs a measuring client to its end."""
    with Driver(*arguments) as driver:
        return driver.report()


def pipe(command: Sequence[str], *arguments: str) -> dict[str, Any]:
    """Runs a command whose output a measuring client reads, until both have ended."""
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as source:
        try:
            assert source.stdout is not None
            with Driver("piped", *arguments, stdin=source.stdout.fileno()) as driver:
                source.stdout.close()
                return driver.report()
        finally:
            if source.poll() is None:
                source.kill()
