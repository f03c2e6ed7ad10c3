"""Finds out who signed a request: Signature Version 4, in the Authorization header or in the query.

The signature is computed anew with botocore's signer and the secret that belongs to the key, and compared
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html).
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from .refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .state import Session, State

_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<credential>[^,]+), ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>\w+)"
)

#: How far a signature's time may be from AWS's clock, and how old a presigned request may be.
_SKEW: Final = datetime.timedelta(minutes=5)
_PRESIGNED_AGE: Final = datetime.timedelta(minutes=15)

_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came; header names are lower-case."""

    method: str
    #: Path and query.
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        """The parameters of the query protocol, wherever they are."""
        return {**self.query, **dict(parse_qsl(self.body.decode(errors="replace"), keep_blank_values=True))}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who signed."""

    arn: str
    account: str
    user_id: str
    access_key: str
    #: Of the signature's scope.
    region: str
    session: Session | None

    @property
    def principals(self) -> set[str]:
        """Names by which a trust policy can mean this caller."""
        role = {self.session.role} if self.session is not None else set()
        return {self.arn, f"arn:aws:iam::{self.account}:root", *role}


@dataclass(frozen=True, kw_only=True)
class _Claim:
    credential: str
    signed: list[str]
    signature: str
    time: str
    token: str | None
    query: dict[str, str]
    age: datetime.timedelta


class _Signer(SigV4Auth):  # type: ignore[misc]
    """Signs the headers that the request says are signed, and no other."""

    def __init__(self, credentials: Credentials, service: str, region: str, signed: list[str]) -> None:
        super().__init__(credentials, service, region)
        self._signed = signed

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        headers = HTTPHeaders()
        for name in self._signed:
            headers[name] = request.headers[name]
        return headers


def identify(request: Request, *, service: str, state: State) -> Caller:
    """Verifies a signed request; raises `Refused` with the service's reason."""
    claim = _claim(request)
    access_key, day, region, scope_service, terminator = _scope(claim.credential)
    if (scope_service, terminator) != (service, "aws4_request"):
        raise Refused("SignatureDoesNotMatch", f"Credential should be scoped to correct service: '{service}'.")
    session = state.session(access_key)
    user: dict[str, Any] | None = state.config.get("users", {}).get(access_key)
    invalid = Refused("InvalidClientTokenId", "The security token included in the request is invalid.")
    if session is not None:
        if claim.token != session.token:
            raise invalid
        secret = session.secret
    elif user is not None and claim.token is None:
        secret = user["secret"]
    else:
        raise invalid
    _check_time(claim, state.now())
    expected = _sign(request, claim, secret=secret, region=region, service=service)
    if claim.time[:8] != day or not hmac.compare_digest(expected, claim.signature):
        raise Refused(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.",
        )
    if session is not None and session.expires <= state.now().timestamp():
        raise Refused("ExpiredToken", "The security token included in the request is expired")
    if session is not None:
        arn, account, user_id = session.arn, session.account, session.user_id
    else:
        assert user is not None
        arn, account, user_id = user["arn"], user["arn"].split(":")[4], user.get("user_id", "AIDAEXAMPLE")
    return Caller(arn=arn, account=account, user_id=user_id, access_key=access_key, region=region, session=session)


def _claim(request: Request) -> _Claim:
    query = request.query
    if "X-Amz-Signature" in query:
        signature = query.pop("X-Amz-Signature")
        try:
            return _Claim(
                credential=query["X-Amz-Credential"],
                signed=query["X-Amz-SignedHeaders"].split(";"),
                signature=signature,
                time=query["X-Amz-Date"],
                token=query.get("X-Amz-Security-Token"),
                query=query,
                age=_PRESIGNED_AGE,
            )
        except KeyError as missing:
            raise Refused("IncompleteSignature", f"{missing} is missing", status=400) from None
    found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        raise Refused("MissingAuthenticationToken", "Request is missing Authentication Token")
    return _Claim(
        credential=found["credential"],
        signed=found["headers"].split(";"),
        signature=found["signature"],
        time=request.headers.get("x-amz-date", ""),
        token=request.headers.get("x-amz-security-token"),
        query=query,
        age=_SKEW,
    )


def _scope(credential: str) -> tuple[str, str, str, str, str]:
    parts = credential.split("/")
    # Key, day, region, service, terminator.
    if len(parts) != 5:
        raise Refused("IncompleteSignature", "Credential must have exactly 5 slash-delimited elements", status=400)
    return parts[0], parts[1], parts[2], parts[3], parts[4]


def _check_time(claim: _Claim, now: datetime.datetime) -> None:
    try:
        signed_at = datetime.datetime.strptime(claim.time, _TIME_FORMAT).replace(tzinfo=datetime.UTC)
    except ValueError:
        raise Refused("IncompleteSignature", "Date must be in ISO-8601 'basic format'", status=400) from None
    minutes = int(claim.age.total_seconds() / 60)
    if signed_at + claim.age < now:
        limit = (now - claim.age).strftime(_TIME_FORMAT)
        raise Refused(
            "SignatureDoesNotMatch",
            f"Signature expired: {claim.time} is now earlier than {limit} ({now:{_TIME_FORMAT}} - {minutes} min.)",
        )
    if signed_at - _SKEW > now:
        limit = (now + _SKEW).strftime(_TIME_FORMAT)
        raise Refused(
            "SignatureDoesNotMatch",
            f"Signature not yet current: {claim.time} is still later than {limit} ({now:{_TIME_FORMAT}} + 5 min.)",
        )


def _sign(request: Request, claim: _Claim, *, secret: str, region: str, service: str) -> str:
    """The signature that the request should bear."""
    if "host" not in claim.signed or any(name not in request.headers for name in claim.signed):
        raise Refused("SignatureDoesNotMatch", "A signed header is missing, or the host is not signed.")
    # What is signed is the body's digest; a header that states one must state the right one.
    stated = request.headers.get("x-amz-content-sha256")
    if stated is not None and stated != hashlib.sha256(request.body).hexdigest():
        raise Refused("SignatureDoesNotMatch", "The body is not the one that was signed.")
    signer = _Signer(Credentials("-", secret), service, region, claim.signed)
    # The scheme is not signed; with http, botocore always signs the body.
    url = f"http://{request.headers['host']}{urlsplit(request.target).path}"
    signed = AWSRequest(
        method=request.method, url=url, data=request.body, params=claim.query, headers=dict(request.headers)
    )
    signed.context["timestamp"] = claim.time
    text = signer.string_to_sign(signed, signer.canonical_request(signed))
    signature: str = signer.signature(text, signed)
    return signature
