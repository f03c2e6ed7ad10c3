"""Errors as the services say them."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from xml.sax.saxutils import escape

_STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"

#: The same refusal has another code in two of the services: STS speaks the query protocol, EKS rest-json.
#: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
_EKS_CODES = {
    "AccessDenied": "AccessDeniedException",
    "ExpiredToken": "ExpiredTokenException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "ServiceUnavailable": "ServiceUnavailableException",
    "Throttling": "ThrottlingException",
}

#: Batch speaks as EKS does, but for what its model says.
#: https://docs.aws.amazon.com/batch/latest/APIReference/CommonErrors.html
_BATCH_CODES = {
    **_EKS_CODES,
    "ServiceUnavailable": "ServerException",
    "Throttling": "TooManyRequestsException",
}

#: And another one in S3, with statuses of its own.
#: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_S3_CODES = {
    "ExpiredToken": ("ExpiredToken", 400),
    "InvalidClientTokenId": ("InvalidAccessKeyId", 403),
    "MissingAuthenticationToken": ("AccessDenied", 403),
    "Throttling": ("SlowDown", 503),
}


class Refused(Exception):  # noqa: N818  what AWS does
    """A request that is answered with an error."""

    def __init__(self, code: str, message: str, *, status: int = 403) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes over the wire."""

    status: int
    body: bytes
    headers: dict[str, str]


def sts_error(refused: Refused, *, as_json: bool) -> Answer:
    """An error of STS."""
    if as_json:
        error = {"Code": refused.code, "Message": refused.message, "Type": "Sender"}
        return json_answer({"Error": error, "RequestId": request_id()}, status=refused.status)
    kind = "Receiver" if refused.status >= 500 else "Sender"
    text = (
        f'<ErrorResponse xmlns="{_STS_NAMESPACE}"><Error><Type>{kind}</Type><Code>{escape(refused.code)}</Code>'
        f"<Message>{escape(refused.message)}</Message></Error><RequestId>{request_id()}</RequestId></ErrorResponse>"
    )
    return Answer(status=refused.status, body=text.encode(), headers={"Content-Type": "text/xml"})


def eks_error(refused: Refused) -> Answer:
    """An error of EKS."""
    code = _EKS_CODES.get(refused.code, refused.code)
    answer = json_answer({"message": refused.message}, status=429 if code == "ThrottlingException" else refused.status)
    return Answer(status=answer.status, body=answer.body, headers={**answer.headers, "x-amzn-ErrorType": code})


def batch_error(refused: Refused) -> Answer:
    """An error of Batch."""
    code = _BATCH_CODES.get(refused.code, refused.code)
    status = {"TooManyRequestsException": 429, "ServerException": 500}.get(code, refused.status)
    answer = json_answer({"message": refused.message}, status=status)
    return Answer(status=status, body=answer.body, headers={**answer.headers, "x-amzn-ErrorType": code})


def s3_error(refused: Refused) -> Answer:
    """An error of S3."""
    code, status = _S3_CODES.get(refused.code, (refused.code, refused.status))
    text = (
        f"<Error><Code>{escape(code)}</Code><Message>{escape(refused.message)}</Message>"
        f"<RequestId>{request_id()}</RequestId></Error>"
    )
    return Answer(status=status, body=text.encode(), headers={"Content-Type": "application/xml"})


def sts_answer(action: str, result: str) -> Answer:
    """A good answer of STS: the XML inside of `<ActionResult>`."""
    text = (
        f'<{action}Response xmlns="{_STS_NAMESPACE}"><{action}Result>{result}</{action}Result>'
        f"<ResponseMetadata><RequestId>{request_id()}</RequestId></ResponseMetadata></{action}Response>"
    )
    return Answer(status=200, body=text.encode(), headers={"Content-Type": "text/xml"})


def json_answer(value: object, *, status: int = 200) -> Answer:
    """An answer in JSON."""
    headers = {"Content-Type": "application/json", "x-amzn-RequestId": request_id()}
    return Answer(status=status, body=json.dumps(value).encode(), headers=headers)


def request_id() -> str:
    """Something that looks like one."""
    return secrets.token_hex(16)
