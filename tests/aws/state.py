"""What the doubles know: keys and roles, sessions handed out, faults to show, calls seen.

Sessions outlive a restart of the process, as they would in AWS: they are kept in a file, as is the configuration.
"""

from __future__ import annotations

import base64
import datetime
import json
import secrets
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .batch.service import Batch
from .logs import LogGroups
from .shipper import Shipper
from .sqs import Queues

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Characters of a session token unless the configuration says otherwise: between those of AWS with and without tags.
TOKEN_SIZE: Final = 800

#: Calls remembered; a run makes hundreds.
_CALLS: Final = 100_000


@dataclass(kw_only=True)
class Session:
    """Credentials that were handed out."""

    access_key: str
    secret: str
    token: str
    #: Of the session, `arn:aws:sts::...:assumed-role/Role/session`.
    arn: str
    role: str
    account: str
    user_id: str
    #: Seconds since the epoch, by the doubles' clock.
    expires: float
    policy: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    #: Keys of tags that a session made from this one inherits.
    transitive: list[str] = field(default_factory=list)
    source_identity: str | None = None


@dataclass(kw_only=True)
class Fault:
    """Something that goes wrong with calls of one kind."""

    #: `sts`, `eks`, `s3`, `batch`, `sqs`, `logs`, or `*`.
    service: str
    #: Name of an action, or `*`.
    action: str = "*"
    #: throttle, unavailable, reset (the connection is cut, nothing is done), lost_answer (it is cut when all is done)
    #: or hang (nothing is done until the fault is gone).
    kind: str
    #: How often; None is until it is taken back.
    times: int | None = None
    #: Calls a second that it lets pass; None lets none.
    rate: float | None = None

    def __post_init__(self) -> None:
        """A second's calls may come at once."""
        self._passes, self._filled = self.rate or 0.0, time.monotonic()

    def concerns(self, service: str, action: str) -> bool:
        """Whether a call is hit."""
        return (
            self.service in ("*", service)
            and self.action in ("*", action)
            and self.times != 0
            and not self._lets_pass()
        )

    def _lets_pass(self) -> bool:
        if self.rate is None:
            return False
        now = time.monotonic()
        self._passes = min(self._passes + (now - self._filled) * self.rate, max(self.rate, 1.0))
        self._filled = now
        if self._passes < 1.0:
            return False
        self._passes -= 1.0
        return True


def _print(line: str) -> None:
    print(line, flush=True)


class State:
    """Shared by all requests; every method may be called from any thread."""

    def __init__(self, folder: Path, *, say: Callable[[str], object] = _print) -> None:
        """Each call is told to `say`, as JSON without secrets."""
        self.say = say
        self._folder = folder
        self._changed = threading.Condition()
        self._config: dict[str, Any] = {}
        self._sessions: dict[str, Session] = {}
        self._handed_out: list[str] = []
        self._faults: list[Fault] = []
        self._calls: list[dict[str, Any]] = []
        self._held = 0
        #: What Batch knows, which ends with the process.
        self.sqs = Queues(self)
        self.batch = Batch(self.sqs.tell)
        self.logs = LogGroups()
        self._shipper = Shipper(self.logs, lambda: self.config)
        if (folder / "state.json").exists():
            saved = json.loads((folder / "state.json").read_text())
            self._config, self._handed_out = saved["config"], saved["handed_out"]
            self._sessions = {one["access_key"]: Session(**one) for one in saved["sessions"]}

    @property
    def config(self) -> dict[str, Any]:
        """Users, roles, web identities, clusters and so on; see `aws.control`."""
        with self._changed:
            return self._config

    def configure(self, config: dict[str, Any]) -> None:
        """Replaces the configuration."""
        with self._changed:
            self._config = config
            self._save()
        if "logs" in config:
            self._shipper.start()

    def reset(self) -> None:
        """Forgets everything."""
        with self._changed:
            self._config, self._sessions, self._handed_out, self._calls = {}, {}, [], []
            self._faults = []
            self._save()
            self._changed.notify_all()
        self.batch.reset()
        self.sqs.reset()
        self.logs.reset()

    def now(self) -> datetime.datetime:
        """The time by the doubles' clock, which can be set wrong."""
        offset = datetime.timedelta(seconds=self.config.get("clock_offset", 0))
        return datetime.datetime.now(datetime.UTC) + offset

    def open_session(self, *, size: int | None, **facts: Any) -> Session:  # noqa: ANN401  fields of a session
        """Makes credentials and remembers them."""
        length = size or TOKEN_SIZE
        token = base64.b64encode(secrets.token_bytes(length)).decode()[:length]
        session = Session(
            access_key=f"ASIA{secrets.token_hex(8).upper()}",
            secret=base64.b64encode(secrets.token_bytes(30)).decode(),
            token=token,
            **facts,
        )
        with self._changed:
            self._sessions[session.access_key] = session
            self._handed_out += [session.access_key, session.secret, session.token]
            self._save()
        return session

    def session(self, access_key: str) -> Session | None:
        """The session of a key."""
        with self._changed:
            return self._sessions.get(access_key)

    def expire(self, role: str | None) -> int:
        """Ends the sessions of one role, or all, now; returns how many were alive."""
        with self._changed:
            now = self.now().timestamp()
            alive = [one for one in self._sessions.values() if role in (None, one.role) and one.expires > now]
            for session in alive:
                session.expires = now
            self._save()
            return len(alive)

    def secrets(self) -> list[str]:
        """Every key, its id included, and session token handed out so far, and the secrets of the users."""
        with self._changed:
            users = self._config.get("users", {}).values()
            return [*self._handed_out, *(user["secret"] for user in users), *self._config.get("web_identities", {})]

    def set_faults(self, faults: list[dict[str, Any]]) -> None:
        """Replaces the faults; an empty list lets held requests go on."""
        with self._changed:
            self._faults = [Fault(**fault) for fault in faults]
            self._changed.notify_all()

    def take_fault(self, service: str, action: str) -> str | None:
        """The kind of fault that hits this call, if any; `hang` is waited out here."""
        with self._changed:
            fault = next((one for one in self._faults if one.concerns(service, action)), None)
            if fault is None:
                return None
            if fault.times is not None:
                fault.times -= 1
            if fault.kind == "hang":
                self._held += 1
                self._changed.wait_for(lambda: not any(fault is other for other in self._faults))
                self._held -= 1
                return None
            return fault.kind

    @property
    def held(self) -> int:
        """How many requests wait for the end of a fault."""
        with self._changed:
            return self._held

    def note(self, call: dict[str, Any]) -> None:
        """Remembers a call; it must hold no secret."""
        with self._changed:
            self._calls.append(call)
            del self._calls[:-_CALLS]

    def calls(self) -> list[dict[str, Any]]:
        """The calls so far, in the order of their ends."""
        with self._changed:
            return list(self._calls)

    def forget_calls(self) -> None:
        """Starts counting anew."""
        with self._changed:
            self._calls.clear()

    def _save(self) -> None:
        sessions = [asdict(session) for session in self._sessions.values()]
        saved = {"config": self._config, "sessions": sessions, "handed_out": self._handed_out}
        partial = self._folder / "state.partial"
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(saved))
        partial.replace(self._folder / "state.json")
