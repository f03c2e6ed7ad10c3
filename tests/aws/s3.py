"""S3 before a store that takes anything: finds out who signed and what the policies allow; the store gives the answer.

The store is the configuration's `s3`, `{"upstream": "HOST:PORT"}`. Buckets are named in the path.
"""

from __future__ import annotations

import http.client
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from .policies import authorize
from .refusals import Answer, Refused
from .signatures import Request, identify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .state import State

_KEY: Final = re.compile(rb"<Key>([^<]*)</Key>")

#: Headers that belong to a connection and not to what is said over it; the listener makes its own.
_OWN: Final = {"connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding"}

#: Seconds.
_TIMEOUT: Final = 60.0


def action_of(request: Request) -> str:
    """What is asked for, by the name that policies use."""
    query = request.query
    match request.method:
        case "PUT":
            return "PutObject"
        case "GET":
            return "ListBucket" if "list-type" in query else "GetObject"
        case "DELETE":
            return "DeleteObject"
        case "POST" if "delete" in query:
            return "DeleteObject"
        case _:
            return ""


def answer(request: Request, state: State, call: dict[str, Any]) -> Answer:
    """Answers one request; what happened is added to `call`."""
    caller = identify(request, service="s3", state=state)
    call |= {"caller": caller.arn, "region": caller.region}
    for resource, context in _resources(request):
        call["resource"] = resource
        authorize(caller, f"s3:{action_of(request)}", resource, state, context=context)
    upstream = state.config.get("s3", {}).get("upstream")
    if upstream is None:
        raise Refused("ServiceUnavailable", "there is no store behind", status=503)
    return _forward(request, upstream)


def _resources(request: Request) -> Iterator[tuple[str, dict[str, str]]]:
    """What a request is about, each with what conditions may ask of it."""
    bucket, _, key = unquote(urlsplit(request.target).path).lstrip("/").partition("/")
    arn = f"arn:aws:s3:::{bucket}"
    if key:
        yield f"{arn}/{key}", {}
    elif request.method == "POST":
        for found in _KEY.finditer(request.body):
            yield f"{arn}/{found[1].decode()}", {}
    else:
        yield arn, {"s3:prefix": request.query.get("prefix", "")}


def _forward(request: Request, upstream: str) -> Answer:
    connection = http.client.HTTPConnection(upstream, timeout=_TIMEOUT)
    try:
        headers = {name: value for name, value in request.headers.items() if name not in _OWN}
        connection.request(request.method, request.target, body=request.body or None, headers=headers)
        found = connection.getresponse()
        kept = {name: value for name, value in found.getheaders() if name.lower() not in _OWN}
        return Answer(status=found.status, body=found.read(), headers=kept)
    finally:
        connection.close()
