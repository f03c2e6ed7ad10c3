"""CloudWatch Logs for who reads what was shipped: DescribeLogStreams and GetLogEvents.

The configuration has a section `logs`: `{"groups": {"REGION/NAME": {"account": ACCOUNT, "ship": SHIP}}}`; what `ship`
says is in `shipper`. A client finds the double through AWS_ENDPOINT_URL_CLOUDWATCH_LOGS.

Every request is checked against botocore's model, every answer against the model and botocore's parser; what is wrong
is kept with the violations of Batch. Pages are small, so that every reading has several, and some are empty although
others follow, as AWS says that they may be. Control: `GET /logs/streams?group=REGION/NAME` tells the messages of each
stream.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from botocore.awsrequest import HeadersDict
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser

from .batch.model import shape_violations
from .policies import authorize
from .refusals import Answer, Refused, request_id
from .signatures import Caller, Request, identify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .state import State

_TARGET: Final = "Logs_20140328."
#: Events in a page; AWS gives up to 10,000.
_PAGE: Final = 7


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event, in milliseconds since 1970."""

    timestamp: int
    ingested: int
    message: str


class LogGroups:
    """All log groups; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: dict[str, dict[str, list[Event]]] = {}

    def reset(self) -> None:
        """Empties all groups."""
        with self._lock:
            self._streams.clear()

    def put(self, key: str, stream: str, events: list[Event]) -> None:
        """What PutLogEvents does in a group `REGION/NAME`: a stream is in the order of its times."""
        with self._lock:
            found = self._streams.setdefault(key, {}).setdefault(stream, [])
            found += events
            found.sort(key=lambda one: one.timestamp)

    def streams(self, key: str) -> dict[str, list[Event]]:
        """The streams of a group with their events."""
        with self._lock:
            return {name: list(events) for name, events in sorted(self._streams.get(key, {}).items())}


# --- the wire --------------------------------------------------------------------------------------------------------


@cache
def _service() -> Any:  # noqa: ANN401  botocore's ServiceModel
    return ServiceModel(Loader().load_service_model("logs", "service-2"), "logs")


def action_of(request: Request) -> str:
    """What is asked for; empty if the model knows no such operation."""
    name = request.headers.get("x-amz-target", "").removeprefix(_TARGET)
    return name if name in _service().operation_names else ""


def answer(request: Request, state: State, call: dict[str, Any]) -> Answer:
    """Answers one request; what happened is added to `call`."""
    name = action_of(request)
    caller = identify(request, service="logs", state=state)
    call |= {"caller": caller.arn, "region": caller.region}
    handler = _HANDLERS.get(name)
    if handler is None:
        raise Refused("InvalidOperationException", f"{name} is not played here", status=400)
    asked = json.loads(request.body)
    operation = _service().operation_model(name)
    if found := shape_violations(asked, operation.input_shape):
        state.batch.violate(f"{name}: {one}" for one in found)
        raise Refused("InvalidParameterException", "; ".join(found), status=400)
    value = handler(asked, _group(asked, caller, state, name), state)
    made = _json(value)
    state.batch.violate(f"{name}: {one}" for one in _answer_violations(value, made, operation.output_shape))
    return made


def error(refused: Refused, state: State, name: str) -> Answer:
    """An error as a client gets it."""
    code = _CODES.get(refused.code, refused.code)
    value = {"__type": code, "message": refused.message}
    made = _json(value, status=503 if code == "ServiceUnavailableException" else 400)
    modelled = {one.name for one in _service().operation_model(name).error_shapes} if name else set()
    if code not in modelled | {*_CODES.values()}:
        state.batch.violate([f"{name}: no client expects the error {code}"])
    return made


#: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/CommonErrors.html
_CODES: Final = {
    "AccessDenied": "AccessDeniedException",
    "ExpiredToken": "ExpiredTokenException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "IncompleteSignature": "IncompleteSignature",
    "ServiceUnavailable": "ServiceUnavailableException",
    "Throttling": "ThrottlingException",
}


def _json(value: object, *, status: int = 200) -> Answer:
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": request_id()}
    return Answer(status=status, body=json.dumps(value).encode(), headers=headers)


def _group(asked: Mapping[str, Any], caller: Caller, state: State, name: str) -> str:
    """The key of the group that a request means, which the caller may use."""
    identifier = asked.get("logGroupIdentifier", "")
    if bool(identifier) == ("logGroupName" in asked):
        raise Refused("InvalidParameterException", "one of logGroupName and logGroupIdentifier", status=400)
    group = asked.get("logGroupName") or identifier.rpartition(":log-group:")[2]
    key = f"{caller.region}/{group}"
    facts = state.config.get("logs", {}).get("groups", {}).get(key)
    own = caller.session.account if caller.session else "000000000000"
    account = identifier.split(":")[4] if identifier.startswith("arn:") else own
    resource = f"arn:aws:logs:{caller.region}:{account}:log-group:{group}:log-stream:{asked.get('logStreamName', '')}"
    authorize(caller, f"logs:{name}", resource, state)
    if facts is None or facts["account"] != account:
        raise Refused("ResourceNotFoundException", "The specified log group does not exist.", status=400)
    return key


def _describe(asked: dict[str, Any], key: str, state: State) -> dict[str, Any]:
    names = [one for one in state.logs.streams(key) if one.startswith(asked.get("logStreamNamePrefix", ""))]
    return {"logStreams": [{"logStreamName": one} for one in names[: asked.get("limit", 50)]]}


def _read(asked: dict[str, Any], key: str, state: State) -> dict[str, Any]:
    events = state.logs.streams(key).get(asked["logStreamName"])
    if events is None:
        raise Refused("ResourceNotFoundException", "The specified log stream does not exist.", status=400)
    events = [one for one in events if one.timestamp >= asked.get("startTime", 0)]
    if not asked.get("startFromHead"):
        raise Refused("InvalidParameterException", "only reading from the head is played here", status=400)
    begin, is_empty = 0, False
    if token := asked.get("nextToken"):
        where, _, kind = token.removeprefix("f/").partition("-")
        begin, is_empty = int(where), kind == "empty"
    end = min(begin + _PAGE, len(events))
    # Behind each full page comes an empty one, which is not the last.
    if is_empty or end == begin:
        return {"events": [], "nextForwardToken": f"f/{begin}", "nextBackwardToken": f"b/{begin}"}
    kind = "-empty" if end - begin == _PAGE else ""
    told = [
        {"timestamp": one.timestamp, "message": one.message, "ingestionTime": one.ingested} for one in events[begin:end]
    ]
    return {"events": told, "nextForwardToken": f"f/{end}{kind}", "nextBackwardToken": f"b/{begin}"}


def _answer_violations(value: dict[str, Any], answer: Answer, shape: Any) -> list[str]:  # noqa: ANN401  botocore's
    response = {"status_code": answer.status, "headers": HeadersDict(answer.headers), "body": answer.body}
    read = dict(create_parser("json").parse(response, shape))
    read.pop("ResponseMetadata", None)
    found = shape_violations(value, shape)
    return found if read == value else [*found, f"botocore reads {read} from {value}"]


_HANDLERS: Final[dict[str, Callable[[dict[str, Any], str, State], dict[str, Any]]]] = {
    "DescribeLogStreams": _describe,
    "GetLogEvents": _read,
}


def control(groups: LogGroups, method: str, target: str) -> object:
    """The part of the control API that is about logs; raises KeyError for what does not exist."""
    split = urlsplit(target)
    if (method, split.path) != ("GET", "/logs/streams"):
        raise KeyError(target)
    found = groups.streams(parse_qs(split.query)["group"][0])
    return {name: [one.message for one in events] for name, events in found.items()}
