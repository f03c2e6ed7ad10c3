"""Says in the broker's words what the arguments of ``BatchOperator`` ask of AWS Batch.

Pure. The arguments have the shapes of AWS's own API; what the contract has no word for is refused with its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from podbroker import BatchWorkload
from podbroker.airflow.exceptions import RemotePodInvalidSpec
from podbroker.batch import EVALUATE_ON_EXIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podbroker.airflow.batch_lifecycle import BatchLifeCycle

__all__ = ["features_of", "workload_of"]


def workload_of(operator: BatchLifeCycle) -> BatchWorkload:
    """Translate the arguments of an operator.

    Raises:
        RemotePodInvalidSpec: Something cannot be sent; the message names it.

    """
    array = _members("array_properties", operator.array_properties, ("size",))
    retry = _members("retry_strategy", operator.retry_strategy, ("attempts", "evaluateOnExit"))
    override = operator.eks_properties_override
    if override is not None:
        _mapping("eks_properties_override", override)
    attempts, conditions = retry.get("attempts"), retry.get("evaluateOnExit") or ()
    if conditions and attempts is None:
        _refuse("retry_strategy.evaluateOnExit", "AWS Batch takes it together with attempts only")
    if operator.scheduling_priority_override is not None and operator.share_identifier is None:
        operator.log.info("AWS Batch looks at scheduling_priority_override only with a share_identifier")
    seconds = _number("submit_job_timeout", operator.submit_job_timeout)
    try:
        return BatchWorkload(
            job_definition=operator.job_definition,
            job_queue=operator.job_queue or "",
            parameters=_texts("parameters", operator.parameters),
            eks_properties_override=override,
            array_size=_number("array_properties.size", array.get("size")),
            depends_on_job_ids=_jobs(operator.depends_on),
            share_identifier=operator.share_identifier or "",
            scheduling_priority=_number("scheduling_priority_override", operator.scheduling_priority_override),
            attempts=_number("retry_strategy.attempts", attempts),
            evaluate_on_exit=[
                _texts(f"retry_strategy.evaluateOnExit[{at}]", each) for at, each in enumerate(conditions)
            ],
            attempt_timeout=timedelta(seconds=seconds) if seconds else None,
            tags=_texts("tags", operator.tags),
        )
    except ValueError as error:
        raise RemotePodInvalidSpec(str(error)) from error


def features_of(workload: BatchWorkload) -> tuple[str, ...]:
    """Name what a broker must know so that it drops nothing of a job."""
    return (EVALUATE_ON_EXIT,) if workload.evaluate_on_exit else ()


def _jobs(depends_on: Iterable[Mapping[str, str]] | None) -> list[str]:
    ids = []
    for at, each in enumerate(depends_on or ()):
        place = f"depends_on[{at}]"
        said = _members(place, each, ("jobId", "type"))
        if said.get("type"):
            _refuse(f"{place}.type", "the job waits for whole jobs, and not for children of an array")
        if not said.get("jobId"):
            _refuse(f"{place}.jobId", "it is missing")
        ids.append(str(said["jobId"]))
    return ids


def _members(place: str, value: Any, names: tuple[str, ...]) -> Mapping[str, Any]:  # noqa: ANN401 -- of a DAG's author
    if value is None:
        return {}
    _mapping(place, value)
    for name in value:
        if name not in names:
            _refuse(f"{place}.{name}", f"it is not sent; what is sent is {', '.join(names)}")
    members: Mapping[str, Any] = value
    return members


def _mapping(place: str, value: object) -> None:
    if not isinstance(value, Mapping):
        _refuse(place, f"it must be a dictionary and is a {type(value).__name__}")


def _texts(place: str, value: Any) -> dict[str, str]:  # noqa: ANN401 -- of a DAG's author
    _mapping(place, value)
    for name, each in value.items():
        if not isinstance(each, str):
            _refuse(f"{place}.{name}", f"AWS Batch takes text, and this is a {type(each).__name__}")
    return dict(value)


def _number(place: str, value: Any) -> int | None:  # noqa: ANN401 -- a number, or one that was rendered
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        _refuse(place, f"it must be a whole number and is {value!r}")


def _refuse(place: str, why: str) -> NoReturn:
    raise RemotePodInvalidSpec(f"{place}: {why}")
