"""SQS for who takes events of jobs: ReceiveMessage with long polls, DeleteMessage and DeleteMessageBatch.

The configuration has a section `sqs`: `{"queues": {"REGION/NAME": {"account": ACCOUNT, "events": {"job_queues":
[NAMES], "statuses": [STATUSES]}}}}`. A queue with `events` gets what EventBridge would put into it by such a rule: each
change of a job of these queues to one of these statuses, as an event. Which URL a client uses does not matter, but for
account and name at its end; it finds the double through AWS_ENDPOINT_URL_SQS.

Every request is checked against botocore's model, every answer against the model and botocore's parser; what is wrong
is kept with the violations of Batch. Control: `POST /sqs/send` with `{"queue": "REGION/NAME", "body": TEXT}` puts any
message into a queue, and `GET /sqs/messages?queue=REGION/NAME` tells the bodies of those that are left, also of those
that somebody has received and not deleted.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
import uuid
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from botocore.awsrequest import HeadersDict
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser

from .batch import details
from .batch.model import shape_violations
from .policies import authorize
from .refusals import Answer, Refused, request_id
from .signatures import Caller, Request, identify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .batch.job import Job
    from .state import State

_TARGET: Final = "AmazonSQS."
#: Seconds until a message that was received and not deleted is handed out again, unless the request says otherwise.
_HIDDEN: Final = 30
#: What SQS takes at most: seconds of waiting and hiding, messages at once.
_LIMITS: Final = {"WaitTimeSeconds": (0, 20), "VisibilityTimeout": (0, 43200), "MaxNumberOfMessages": (1, 10)}


@dataclass(eq=False, kw_only=True)
class _Message:
    body: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    #: Before this, by the monotonic clock, nobody gets it.
    hidden_until: float = 0.0
    #: Of the latest time that it was handed out.
    handle: str = ""


class Queues:
    """All queues; may be used from any thread."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._changed = threading.Condition()
        self._messages: dict[str, list[_Message]] = {}
        self._resets = 0

    def reset(self) -> None:
        """Empties all queues; who waits is answered."""
        with self._changed:
            self._messages.clear()
            self._resets += 1
            self._changed.notify_all()

    def send(self, key: str, body: str) -> None:
        """Puts a message into `REGION/NAME`."""
        with self._changed:
            self._messages.setdefault(key, []).append(_Message(body=body))
            self._changed.notify_all()

    def bodies(self, key: str) -> list[str]:
        """Of all messages that are not deleted."""
        with self._changed:
            return [one.body for one in self._messages.get(key, [])]

    def tell(self, job: Job) -> None:
        """A job has changed: what EventBridge does then."""
        for key, facts in self._state.config.get("sqs", {}).get("queues", {}).items():
            rule = facts.get("events")
            if (
                rule is not None
                and key.partition("/")[0] == job.queue.region
                and job.queue.name in rule["job_queues"]
                and job.now.status in rule["statuses"]
            ):
                self.send(key, json.dumps(_event(job)))

    def receive(self, key: str, *, most: int, wait: float, hidden: float) -> list[dict[str, str]]:
        """Messages that nobody hides, as soon as there are any."""
        end = time.monotonic() + wait
        with self._changed:
            resets = self._resets
            while True:
                now = time.monotonic()
                found = [one for one in self._messages.get(key, []) if one.hidden_until <= now][:most]
                if found or now >= end or self._resets != resets:
                    break
                again = min([one.hidden_until for one in self._messages.get(key, [])], default=end)
                self._changed.wait(min(again, end) - now)
            for one in found:
                one.hidden_until, one.handle = now + hidden, secrets.token_urlsafe(48)
            return [_told(one) for one in found]

    def delete(self, key: str, handle: str) -> None:
        """Takes a message out; one that is gone is no mistake."""
        with self._changed:
            left = self._messages.get(key, [])
            left[:] = [one for one in left if one.handle != handle]


def _event(job: Job) -> dict[str, Any]:
    """https://docs.aws.amazon.com/batch/latest/userguide/batch_job_events.html."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Batch Job State Change",
        "source": "aws.batch",
        "account": job.queue.account,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "region": job.queue.region,
        "resources": [job.arn],
        "detail": details.detail(job, job.now),
    }


def _told(message: _Message) -> dict[str, str]:
    digest = hashlib.md5(message.body.encode(), usedforsecurity=False).hexdigest()
    return {"MessageId": message.id, "ReceiptHandle": message.handle, "MD5OfBody": digest, "Body": message.body}


# --- requests --------------------------------------------------------------------------------------------------------


@cache
def _service() -> Any:  # noqa: ANN401  botocore's ServiceModel
    return ServiceModel(Loader().load_service_model("sqs", "service-2"), "sqs")


def action_of(request: Request) -> str:
    """What is asked for; empty if the model knows no such operation."""
    name = request.headers.get("x-amz-target", "").removeprefix(_TARGET)
    return name if name in _service().operation_names else ""


def answer(request: Request, state: State, call: dict[str, Any]) -> Answer:
    """Answers one request; what happened is added to `call`."""
    name = action_of(request)
    caller = identify(request, service="sqs", state=state)
    call |= {"caller": caller.arn, "region": caller.region}
    handler = _HANDLERS.get(name)
    if handler is None:
        raise Refused("UnsupportedOperation", f"{name} is not played here", status=400)
    asked = json.loads(request.body)
    operation = _service().operation_model(name)
    if found := [*shape_violations(asked, operation.input_shape), *_limits(asked)]:
        state.batch.violate(f"{name}: {one}" for one in found)
        raise Refused("InvalidParameterValue", "; ".join(found), status=400)
    value = handler(asked, _queue(asked["QueueUrl"], caller, state, name), state)
    call |= {"messages": len(value.get("Messages", []))} if name == "ReceiveMessage" else {}
    made = _json(value)
    state.batch.violate(f"{name}: {one}" for one in _answer_violations(value, made, operation.output_shape))
    return made


def error(refused: Refused, state: State, name: str) -> Answer:
    """An error as a client gets it."""
    code = _CODES.get(refused.code, refused.code)
    value = {"__type": f"com.amazonaws.sqs#{code}", "message": refused.message}
    made = _json(value, status=503 if code == "ServiceUnavailable" else refused.status)
    modelled = {one.name for one in _service().operation_model(name).error_shapes} if name else set()
    if code not in modelled | {*_CODES.values(), "InvalidParameterValue", "UnsupportedOperation"}:
        state.batch.violate([f"{name}: no client expects the error {code}"])
    return made


#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
_CODES: Final = {
    "AccessDenied": "AccessDeniedException",
    "ExpiredToken": "ExpiredTokenException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "IncompleteSignature": "IncompleteSignature",
    "ServiceUnavailable": "ServiceUnavailable",
    "Throttling": "RequestThrottled",
}


def _json(value: object, *, status: int = 200) -> Answer:
    headers = {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": request_id()}
    return Answer(status=status, body=json.dumps(value).encode(), headers=headers)


def _limits(asked: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {asked[name]} is not between {least} and {most}"
        for name, (least, most) in _LIMITS.items()
        if not least <= asked.get(name, least) <= most
    ]


def _queue(url: str, caller: Caller, state: State, name: str) -> str:
    """The key of the queue that a URL means, which the caller may use."""
    account, _, queue = urlsplit(url).path.lstrip("/").partition("/")
    # The batch has the permission of the one.
    action = f"sqs:{name.removesuffix('Batch')}"
    authorize(caller, action, f"arn:aws:sqs:{caller.region}:{account}:{queue}", state)
    key = f"{caller.region}/{queue}"
    facts = state.config.get("sqs", {}).get("queues", {}).get(key)
    if facts is None or facts["account"] != account:
        raise Refused("QueueDoesNotExist", "The specified queue does not exist.", status=400)
    return key


def _receive(asked: dict[str, Any], key: str, state: State) -> dict[str, Any]:
    wait, hidden = asked.get("WaitTimeSeconds", 0), asked.get("VisibilityTimeout", _HIDDEN)
    found = state.sqs.receive(key, most=asked.get("MaxNumberOfMessages", 1), wait=wait, hidden=hidden)
    return {"Messages": found} if found else {}


def _delete(asked: dict[str, Any], key: str, state: State) -> dict[str, Any]:
    state.sqs.delete(key, asked["ReceiptHandle"])
    return {}


def _delete_batch(asked: dict[str, Any], key: str, state: State) -> dict[str, Any]:
    ids = [one["Id"] for one in asked["Entries"]]
    if not ids:
        raise Refused("EmptyBatchRequest", "There should be at least one entry in the request.", status=400)
    if len(ids) > _LIMITS["MaxNumberOfMessages"][1]:
        raise Refused("TooManyEntriesInBatchRequest", f"{len(ids)} entries", status=400)
    if len(set(ids)) < len(ids):
        raise Refused("BatchEntryIdsNotDistinct", "Two entries have one id.", status=400)
    for one in asked["Entries"]:
        state.sqs.delete(key, one["ReceiptHandle"])
    return {"Successful": [{"Id": one} for one in ids], "Failed": []}


def _answer_violations(value: dict[str, Any], answer: Answer, shape: Any) -> list[str]:  # noqa: ANN401  botocore's
    if shape is None:
        return []
    response = {"status_code": answer.status, "headers": HeadersDict(answer.headers), "body": answer.body}
    read = dict(create_parser("json").parse(response, shape))
    read.pop("ResponseMetadata", None)
    found = shape_violations(value, shape)
    return found if read == value else [*found, f"botocore reads {read} from {value}"]


_HANDLERS: Final[dict[str, Callable[[dict[str, Any], str, State], dict[str, Any]]]] = {
    "ReceiveMessage": _receive,
    "DeleteMessage": _delete,
    "DeleteMessageBatch": _delete_batch,
}


def control(queues: Queues, method: str, target: str, value: Any) -> object:  # noqa: ANN401  JSON
    """The part of the control API that is about SQS; raises KeyError for what does not exist."""
    split = urlsplit(target)
    match method, split.path:
        case "POST", "/sqs/send":
            queues.send(value["queue"], value["body"])
            return {}
        case "GET", "/sqs/messages":
            return queues.bodies(parse_qs(split.query)["queue"][0])
        case _:
            raise KeyError(target)
