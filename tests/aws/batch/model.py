"""Botocore's model of AWS Batch: which operation a request is, and whether what is said has the model's shapes.

Botocore itself checks types and what is required; here enumerations, lengths and unknown members count, too. An answer
is also read with botocore's own parser: what it does not give back was not said in the model's words.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.awsrequest import HeadersDict
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aws.refusals import Answer
    from aws.signatures import Request

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "double": (int, float),
    "boolean": (bool,),
}

#: The model calls it required, and a job that has not started has none.
_ABSENT: Final = {("JobDetail", "startedAt")}

#: Errors that any service gives without its model saying so.
_COMMON_ERRORS: Final = {
    *("AccessDeniedException", "ExpiredTokenException", "InvalidSignatureException", "UnrecognizedClientException"),
    *("MissingAuthenticationTokenException", "IncompleteSignature", "TooManyRequestsException"),
    "UnknownOperationException",
}


@cache
def service() -> Any:  # noqa: ANN401  botocore's ServiceModel
    """The model, read once."""
    return ServiceModel(Loader().load_service_model("batch", "service-2"), "batch")


@cache
def _paths() -> list[tuple[str, re.Pattern[str], str]]:
    found = []
    for name in service().operation_names:
        http = service().operation_model(name).http
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", http["requestUri"])
        found.append((http["method"], re.compile(pattern), name))
    return found


def operation(request: Request) -> str:
    """The name of what is asked for; empty if the model knows no such path."""
    path = urlsplit(request.target).path
    return next(
        (name for method, pattern, name in _paths() if method == request.method and pattern.fullmatch(path)), ""
    )


def parameters(request: Request, name: str) -> Any:  # noqa: ANN401  JSON
    """What the operation is asked with: of body, path and query. Raises ValueError when the body is no JSON."""
    found: dict[str, Any] = json.loads(request.body) if request.body else {}
    if not isinstance(found, dict):
        raise ValueError("the body is no object")  # noqa: TRY004  one error for what cannot be read
    split = urlsplit(request.target)
    for method, pattern, other in _paths():
        if other == name and method == request.method and (path := pattern.fullmatch(split.path)):
            found |= {key: unquote(value) for key, value in path.groupdict().items()}
    shape = service().operation_model(name).input_shape
    queries = parse_qs(split.query, keep_blank_values=True)
    for member, of in shape.members.items():
        if of.serialization.get("location") == "querystring" and of.serialization["name"] in queries:
            values = queries[of.serialization["name"]]
            found[member] = values if of.type_name == "list" else values[0]
    return found


def request_violations(name: str, value: Mapping[str, Any]) -> list[str]:
    """Where a request is not what the model says."""
    shape = service().operation_model(name).input_shape
    return list(_violations(value, shape, shape.name))


def shape_violations(value: Any, shape: Any) -> list[str]:  # noqa: ANN401  JSON, botocore's
    """Where a value is not what a shape of any service says."""
    return list(_violations(value, shape, shape.name))


def answer_violations(name: str, value: Mapping[str, Any], answer: Answer) -> list[str]:
    """Where a good answer is not what the model says."""
    shape = service().operation_model(name).output_shape
    found = list(_violations(value, shape, shape.name))
    read = _parse(answer, shape)
    read.pop("ResponseMetadata", None)
    if read != value:
        found.append(f"{shape.name}: botocore reads {read} from {value}")
    return found


def error_violations(name: str, answer: Answer) -> list[str]:
    """Where an error is none that a client expects."""
    read = _parse(answer, service().operation_model(name).output_shape if name else None)
    code = read.get("Error", {}).get("Code")
    modelled = {shape.name for shape in service().operation_model(name).error_shapes} if name else set()
    return [] if code in modelled | _COMMON_ERRORS else [f"{name}: no client expects the error {code}"]


def _parse(answer: Answer, shape: Any) -> dict[str, Any]:  # noqa: ANN401  botocore's
    response = {"status_code": answer.status, "headers": HeadersDict(answer.headers), "body": answer.body}
    return dict(create_parser("rest-json").parse(response, shape))


def _violations(value: Any, shape: Any, where: str) -> Iterator[str]:  # noqa: ANN401  JSON, botocore's
    kind = shape.type_name
    if not _is_of(value, kind):
        yield f"{where}: {kind} expected, not {value!r}"
    elif kind == "structure":
        yield from _structure_violations(value, shape, where)
    elif kind == "map":
        yield from _map_violations(value, shape, where)
    elif kind == "list":
        yield from _size_violations(len(value), shape, where)
        for number, inner in enumerate(value):
            yield from _violations(inner, shape.member, f"{where}[{number}]")
    elif kind == "string":
        yield from _size_violations(len(value), shape, where)
        if shape.enum and value not in shape.enum:
            yield f"{where}: {value!r} is none of {shape.enum}"
    elif kind != "boolean":
        yield from _size_violations(value, shape, where)


def _is_of(value: object, kind: str) -> bool:
    """A truth is a number to Python, and to nobody else."""
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _structure_violations(value: dict[str, Any], shape: Any, where: str) -> Iterator[str]:  # noqa: ANN401  botocore's
    for member in shape.required_members:
        if member not in value and (shape.name, member) not in _ABSENT:
            yield f"{where}: {member} is missing"
    for member, inner in value.items():
        if member in shape.members:
            yield from _violations(inner, shape.members[member], f"{where}.{member}")
        else:
            yield f"{where}: there is no {member}"


def _map_violations(value: dict[str, Any], shape: Any, where: str) -> Iterator[str]:  # noqa: ANN401  botocore's
    # Botocore does not count the entries of a map from below, and neither does the service: no tags are fine.
    if len(value) > shape.metadata.get("max", len(value)):
        yield f"{where}: {len(value)} entries, at most {shape.metadata['max']}"
    for key, inner in value.items():
        yield from _violations(key, shape.key, f"{where} key {key!r}")
        yield from _violations(inner, shape.value, f"{where}[{key!r}]")


def _size_violations(size: int, shape: Any, where: str) -> Iterator[str]:  # noqa: ANN401  botocore's
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if (least is not None and size < least) or (most is not None and size > most):
        yield f"{where}: {size} is not between {least} and {most}"
