"""What the calls of this package raise.

One class for each reaction: mend the request, wait, ask an administrator. A failed execution is not among them; it is
data, in ``Execution.outcome``. The native module raises these classes and adds none of its own. Each exception keeps
its attributes when it is pickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "BrokerError",
    "ConflictError",
    "CredentialsError",
    "ExpiredError",
    "FieldViolation",
    "InvalidCursorError",
    "InvalidRequestError",
    "InvalidSpecError",
    "NotAllowedError",
    "NotAuthenticatedError",
    "NotFoundError",
    "PodbrokerError",
    "QuotaError",
    "RefusedError",
    "UnavailableError",
    "UnsupportedError",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One field of a request or a manifest that was refused."""

    field: str
    """Its path, such as ``spec.containers[0].imagee``."""
    description: str
    """What is wrong with it."""


class PodbrokerError(Exception):
    """The broker, or the way to it, could not do what was asked."""

    code: str
    """The gRPC code, such as ``INVALID_ARGUMENT``; empty when the error arose on this side."""
    reason: str
    """The broker's stable word for it, such as ``INVALID_SPEC``; empty when there is none."""
    retryable: bool
    """Whether the same call may succeed later."""
    field_violations: tuple[FieldViolation, ...]
    """The fields that were refused, if the broker named any."""
    request_id: str
    """Finds the call in the broker's log; empty when the broker was not reached."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        retryable: bool = False,
        field_violations: tuple[FieldViolation, ...] = (),
        request_id: str = "",
    ) -> None:
        """Make one with the text that a person reads and the attributes that a program reads."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retryable = retryable
        self.field_violations = field_violations
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the attributes, which ``Exception`` alone would lose, in a pickle."""
        return type(self), self.args, self.__dict__


class InvalidRequestError(PodbrokerError):
    """A field of the request is malformed."""


class InvalidSpecError(InvalidRequestError):
    """The manifest is refused; ``field_violations`` names the fields."""


class InvalidCursorError(InvalidRequestError):
    """The cursor is damaged, or of another execution: watch without one."""


class NotAuthenticatedError(PodbrokerError):
    """There is no credential, or one that the broker does not know."""


class NotAllowedError(PodbrokerError):
    """The caller may not use that target."""


class NotFoundError(PodbrokerError):
    """There is no such execution or target."""


class ExpiredError(NotFoundError):
    """The execution existed and is gone."""


class ConflictError(PodbrokerError):
    """The execution id stands for another request."""


class RefusedError(PodbrokerError):
    """The cluster or the broker refuses a well-formed request; the reason says which rule."""


class QuotaError(RefusedError):
    """A resource quota of the namespace is used up; it may succeed later."""


class CredentialsError(PodbrokerError):
    """The target's credentials are refused; an administrator has to mend them."""


class UnavailableError(PodbrokerError):
    """The broker or the cluster does not answer, for longer than the caller wanted to wait. The pod is left alone."""

    since: datetime | None
    """Since when there was no answer; None if this was not tried again."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        retryable: bool = False,
        field_violations: tuple[FieldViolation, ...] = (),
        request_id: str = "",
        since: datetime | None = None,
    ) -> None:
        """Make one as any other, with the time."""
        super().__init__(
            message,
            code=code,
            reason=reason,
            retryable=retryable,
            field_violations=field_violations,
            request_id=request_id,
        )
        self.since = since


class UnsupportedError(PodbrokerError):
    """The broker does not have that feature."""


class BrokerError(PodbrokerError):
    """A defect of the broker, or an answer that this client does not know."""
