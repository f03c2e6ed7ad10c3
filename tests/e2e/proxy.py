"""A proxy that breaks connections on command.

Plain, it carries bytes and can cut, hold or refuse; with several upstreams it takes turns, as a load balancer does. In
front of a server of plain HTTP/1.1, or of the API server, where it ends TLS with a certificate of its own, it sees
requests: it can lose the answer to one, give another in its place, break an upload in the middle, or a stream right
behind certain bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import enum
import ipaddress
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

_REQUEST: Final = re.compile(rb"^(GET|POST|PUT|PATCH|DELETE) (\S+) HTTP/1\.1\r$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Files of a server's certificate: what it shows, its key, and whom to trust for it."""

    chain: Path
    key: Path
    authority: Path


def make_certificate(folder: Path) -> Certificate:
    """A certificate for 127.0.0.1 and localhost from an authority of its own."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def builder(name: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name("podbroker test authority"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    authority = (
        builder("podbroker test authority", authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = (
        builder("podbroker test server", key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    files = Certificate(chain=folder / "server.crt", key=folder / "server.key", authority=folder / "authority.crt")
    files.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files.chain.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


@dataclass(kw_only=True)
class Tls:
    """How the proxy speaks TLS on both sides."""

    server: ssl.SSLContext
    upstream: ssl.SSLContext


class Instead(enum.Enum):
    """What happens in place of an answer."""

    BREAK = enum.auto()
    KEEP = enum.auto()
    """The connection stays open and silent."""


@dataclass(kw_only=True)
class Swallow:
    """Lose the answers to requests of this kind, so many times."""

    method: str
    path: re.Pattern[str]
    times: int
    instead: Instead
    done: int = 0


@dataclass(kw_only=True, eq=False)
class Answer:
    """Give this answer in place of the API server's, until `stop`."""

    method: str
    path: re.Pattern[str]
    status: str
    """Such as `401 Unauthorized`."""
    body: bytes
    done: int = 0
    stopped: bool = False

    def stop(self) -> None:
        """Requests go through again."""
        self.stopped = True

    def whole(self) -> bytes:
        """The answer; the connection ends with it."""
        head = f"HTTP/1.1 {self.status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


@dataclass(kw_only=True, eq=False)
class CutUpload:
    """Break such requests in the middle of their bodies, so many times."""

    path: re.Pattern[str]
    times: int
    done: int = 0


@dataclass(kw_only=True, eq=False)
class CutBehind:
    """Break the answers to such requests behind the bytes of a pattern; once for each text that it finds."""

    path: re.Pattern[str]
    pattern: re.Pattern[bytes]
    texts: set[bytes] = field(default_factory=set)
    """What it was broken behind so far."""


#: Bytes of an answer that are kept for a pattern that arrives in two parts.
_TAIL: Final = 512


@dataclass(kw_only=True, eq=False)
class _Pair:
    client: asyncio.StreamWriter
    upstream: asyncio.StreamWriter
    swallowing: Instead | None = None
    path: str = ""
    """Of the latest request."""
    tail: bytes = b""
    silent: bool = False
    """Nothing is carried any more, and neither end is told what becomes of the other."""

    def abort(self) -> None:
        self.client.transport.abort()
        self.upstream.transport.abort()


@dataclass(kw_only=True)
class Proxy:
    """Carries connections from a free local port to `upstream` until it is closed.

    Its loop has a thread of its own, in which alone the sockets are touched; what tests call waits for it.
    """

    upstream: tuple[str, int]
    others: tuple[tuple[str, int], ...] = ()
    """More upstreams: connections go to each in turn, and to the next one where nobody listens."""
    tls: Tls | None = None
    sees_http: bool = False
    """Requests are seen without TLS too."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request seen."""

    def __post_init__(self) -> None:
        """Starts to listen."""
        self.port = 0
        self._pairs: set[_Pair] = set()
        self._swallow: Swallow | None = None
        self._answers: list[Answer] = []
        self._cuts: list[CutBehind] = []
        self._uploads: CutUpload | None = None
        self._turn = 0
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._stop = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run(ready)), name="proxy")
        self._thread.start()
        ready.wait()

    def __enter__(self) -> Self:
        """Is itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes everything."""
        self._call(self._stop.set)
        self._thread.join()
        self._loop.close()

    def cut(self, path: str = "") -> int:
        """Breaks every open connection, or those whose latest request has such a path; returns how many there were."""
        return self._call(lambda: self._abort_all(path))

    def refuse(self) -> None:
        """Breaks every connection, open and new, until `allow`."""
        self._refusing = True
        self.cut()

    def allow(self) -> None:
        """Ends `refuse`."""
        self._refusing = False

    def silence(self, path: str = "") -> int:
        """Lets the connections that `cut` would break stay open and carry nothing, for good; new ones are carried."""
        return self._call(lambda: self._silence_all(path))

    def hold(self) -> None:
        """Keeps connections open and carries nothing until `release`."""
        self._call(self._flowing.clear)

    def release(self) -> None:
        """Ends `hold`."""
        self._call(self._flowing.set)

    def swallow(self, method: str, path: str, *, times: int = 1, instead: Instead = Instead.BREAK) -> Swallow:
        """Lets the next such requests through and loses their answers."""
        self._swallow = Swallow(method=method, path=re.compile(path), times=times, instead=instead)
        return self._swallow

    def answer(self, method: str, path: str, *, status: str, body: bytes = b"") -> Answer:
        """Answers requests of this kind (of any method, if it is `*`) with this from now on."""
        answer = Answer(method=method, path=re.compile(path), status=status, body=body)
        self._answers.append(answer)
        return answer

    def cut_behind(self, path: str, pattern: bytes) -> CutBehind:
        """Breaks answers from now on where the pattern ends."""
        cut = CutBehind(path=re.compile(path), pattern=re.compile(pattern))
        self._cuts.append(cut)
        return cut

    def cut_upload(self, path: str, *, times: int) -> CutUpload:
        """Breaks the next such PUTs behind the first bytes of their bodies."""
        self._uploads = CutUpload(path=re.compile(path), times=times)
        return self._uploads

    def _call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=10)

    def _chosen(self, path: str) -> list[_Pair]:
        return [pair for pair in self._pairs if re.search(path, pair.path)]

    def _abort_all(self, path: str = "") -> int:
        chosen = self._chosen(path)
        for pair in chosen:
            pair.abort()
        return len(chosen)

    def _silence_all(self, path: str) -> int:
        chosen = [pair for pair in self._chosen(path) if not pair.silent]
        for pair in chosen:
            pair.silent = True
        return len(chosen)

    async def _run(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self.tls.server if self.tls is not None else None
        )
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        self._refusing = True
        # One whose handshake ends now begins a task of its own, and each task has to begin before it can end.
        await asyncio.sleep(0)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        # What was aborted is told so in a later turn of the loop, each layer of it in one of its own.
        for _ in range(8):
            await asyncio.sleep(0)

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            if self._refusing:
                return
            connected = await self._connect()
            if connected is None:
                return
            from_upstream, upstream = connected
            pair = _Pair(client=client, upstream=upstream)
            await self._carry(pair, from_client, from_upstream)
        finally:
            client.transport.abort()

    async def _carry(self, pair: _Pair, from_client: asyncio.StreamReader, from_upstream: asyncio.StreamReader) -> None:
        self._pairs.add(pair)
        up = asyncio.create_task(self._carry_up(pair, from_client))
        down = asyncio.create_task(self._carry_down(pair, from_upstream))
        try:
            # Either end closes both: no test needs a connection that is half open.
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if pair.silent:
                # Who waits for an answer is not told that there will be none.
                await asyncio.wait({up})
            pair.abort()
            await asyncio.wait({up, down})
        finally:
            pair.abort()
            self._pairs.discard(pair)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        places = (self.upstream, *self.others)
        self._turn += 1
        for offset in range(len(places)):
            with contextlib.suppress(OSError):
                place = places[(self._turn + offset) % len(places)]
                return await asyncio.open_connection(*place, ssl=self.tls.upstream if self.tls is not None else None)
        return None

    async def _carry_up(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if pair.silent:
                    continue
                answer = self._look_at(pair, data)
                if answer is not None:
                    await _write_all(pair.client, answer.whole())
                    return
                if self._cuts_upload(data):
                    await _write_all(pair.upstream, data[: data.index(b"\r\n\r\n") + 10])
                    return
                pair.upstream.write(data)
                await pair.upstream.drain()

    async def _carry_down(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if pair.swallowing is Instead.BREAK:
                    return
                if pair.swallowing is Instead.KEEP or pair.silent:
                    continue
                end = self._end_of(pair, data)
                if end is not None:
                    await _write_all(pair.client, data[:end])
                    return
                pair.client.write(data)
                await pair.client.drain()

    def _end_of(self, pair: _Pair, data: bytes) -> int | None:
        """How much of the data is let through before the connection breaks."""
        whole = pair.tail + data
        before = len(pair.tail)
        pair.tail = whole[-_TAIL:] if self._cuts else b""
        for cut in self._cuts:
            if not cut.path.search(pair.path):
                continue
            for found in cut.pattern.finditer(whole):
                if found.end() > before and found[0] not in cut.texts:
                    cut.texts.add(found[0])
                    return found.end() - before
        return None

    def _cuts_upload(self, data: bytes) -> bool:
        cut = self._uploads
        found = _REQUEST.match(data) if cut is not None and cut.done < cut.times else None
        if cut is None or found is None or found[1] != b"PUT" or not cut.path.search(found[2].decode()):
            return False
        cut.done += 1
        return True

    def _look_at(self, pair: _Pair, data: bytes) -> Answer | None:
        if self.tls is None and not self.sees_http:
            return None
        for found in _REQUEST.finditer(data):
            method, path = found[1].decode(), found[2].decode()
            self.requests.append((method, path))
            pair.path, pair.tail = path, b""
            for answer in self._answers:
                if not answer.stopped and answer.method in ("*", method) and answer.path.search(path):
                    answer.done += 1
                    return answer
            wanted = self._swallow
            if wanted is None or wanted.done >= wanted.times:
                continue
            if method == wanted.method and wanted.path.search(path):
                wanted.done += 1
                pair.swallowing = wanted.instead
        return None


async def _write_all(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Returns when the kernel has everything, so that an abort right after it loses none of it."""
    writer.transport.set_write_buffer_limits(high=0)
    writer.write(data)
    await writer.drain()
