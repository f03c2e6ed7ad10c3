"""The part of the control API that is about Batch; see the package for what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from .job import Job
    from .service import Batch


def control(batch: Batch, method: str, target: str, value: Any) -> object:  # noqa: ANN401  JSON
    """Does one thing; raises KeyError for what does not exist and ValueError for what is wrong."""
    split = urlsplit(target)
    what = split.path.removeprefix("/batch/")
    match method:
        case "GET":
            return _get(batch, what, parse_qs(split.query).get("name", ["*"])[0])
        case "PUT" if what == "behaviour":
            with batch.lock:
                batch.behaviour.set(value)
                batch.scheduler.reconsider()
            return {}
        case "DELETE" if what == "counts":
            batch.counts.clear()
            return {}
        case "DELETE" if what == "violations":
            return batch.forgive()
        case "POST":
            return _post(batch, what, value)
        case _:
            raise KeyError(target)


def _get(batch: Batch, what: str, name: str) -> object:
    match what:
        case "behaviour":
            return batch.behaviour.rules
        case "jobs":
            return batch.show(name)
        case "counts":
            return batch.counts.show()
        case "violations":
            return batch.violations()
        case _:
            raise KeyError(what)


def _post(batch: Batch, what: str, value: dict[str, Any]) -> object:
    match what:
        case "lose":
            more = {key: value[key] for key in ("reason", "grace") if key in value}
            batch.scheduler.attempts.lose(_job(batch, value), **more)
            return {}
        case "terminate":
            batch.scheduler.end(_job(batch, value), value["reason"], is_terminate=True)
            return {}
        case "finish":
            jobs = [_job(batch, value)] if "job" in value else _matching(batch, value["name"])
            batch.scheduler.attempts.finish(jobs, value.get("exit_code", 0))
            return {"finished": len(jobs)}
        case _:
            raise KeyError(what)


def _job(batch: Batch, value: dict[str, Any]) -> Job:
    found = batch.jobs.by_id.get(value["job"])
    if found is None:
        raise ValueError(f"there is no job {value['job']}")
    return found


def _matching(batch: Batch, name: str) -> list[Job]:
    with batch.lock:
        return [one for job in batch.jobs.like(name) for one in (job.children or [job])]
