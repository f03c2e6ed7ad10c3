"""Requests of Batch as they come: who signed, what is allowed, whether model and limits are kept on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws.policies import authorize
from aws.refusals import Answer, Refused, batch_error, json_answer
from aws.signatures import Request, identify

from . import model
from .operations import Operations
from .permissions import needed

if TYPE_CHECKING:
    from aws.state import State


def action_of(request: Request) -> str:
    """What is asked for."""
    return model.operation(request)


def answer(request: Request, state: State, call: dict[str, Any]) -> Answer:
    """Answers one request; what happened is added to `call`."""
    name, batch = action_of(request), state.batch
    caller = identify(request, service="batch", state=state)
    call |= {"caller": caller.arn, "region": caller.region}
    if not name:
        raise Refused("UnknownOperationException", "there is no such path", status=404)
    try:
        asked = model.parameters(request, name)
    except ValueError as error:
        batch.violate([f"{name}: {error}"])
        raise Refused("ClientException", f"{error}", status=400) from None
    if found := model.request_violations(name, asked):
        batch.violate([f"{name}: {one}" for one in found])
        raise Refused("ClientException", "; ".join(found), status=400)
    for action, resource, context in needed(name, asked, caller, state.batch):
        authorize(caller, action, resource, state, context=context)
    call |= {key: asked[key] for key in ("jobName", "jobId", "jobQueue", "jobDefinition") if key in asked}
    call |= {"jobs": len(asked["jobs"])} if "jobs" in asked else {}
    value = Operations(batch, state.config.get("batch", {}), caller).handle(name, asked, len(request.body))
    call |= {"jobId": value["jobId"]} if "jobId" in value else {}
    made = json_answer(value)
    batch.violate(model.answer_violations(name, value, made))
    return made


def error(refused: Refused, state: State, name: str) -> Answer:
    """An error as a client gets it."""
    made = batch_error(refused)
    state.batch.violate(model.error_violations(name, made))
    return made
