"""What each operation does. A handler takes what was asked and by whom, and returns what the model's answer holds."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from aws.refusals import Refused

from . import details, limits, manifest, places
from .job import Job
from .jobs import FILTERS, page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aws.signatures import Caller

    from .definitions import Definition
    from .places import Queue
    from .service import Batch

#: Ids or names in one call.
_MANY: Final = 100
_BULK: Final = 50
_REASON: Final = 1024


class Operations:
    """One request's view of Batch: its account and region."""

    def __init__(self, batch: Batch, config: Mapping[str, Any], caller: Caller) -> None:
        self._batch, self._config = batch, config
        self._account, self._region = caller.account, caller.region

    def handle(self, name: str, request: dict[str, Any], size: int) -> dict[str, Any]:
        """Does what was asked for, in a request of so many bytes; raises `Refused`."""
        handler = _HANDLERS.get(name)
        if handler is None:
            raise Refused("UnknownOperationException", f"{name} is not played here", status=404)
        with self._batch.lock:
            return handler(self, request, size)

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _submit(self, request: dict[str, Any], size: int) -> dict[str, Any]:
        self._limit(limits.of_submit(request, size))
        queue, definition = self._queue(request["jobQueue"]), self._definition(request["jobDefinition"])
        if not queue.is_usable:
            raise _refused(f"Job queue {queue.name} is not enabled and valid")
        if ("shareIdentifier" in request) != ("scheduling_policy" in queue.facts):
            raise _refused("shareIdentifier is for queues with a scheduling policy, and must be given there")
        pod, problems = manifest.properties(definition.request, request)
        self._limit([*problems, *limits.of_pod(pod)])
        waits_for = {one["jobId"] for one in request.get("dependsOn", []) if "jobId" in one}
        for other in waits_for:
            if other not in self._batch.jobs.by_id:
                raise _refused(f"Job {other} to depend on does not exist")
        is_array = "arrayProperties" in request
        if not is_array and any("type" in one and "jobId" not in one for one in request.get("dependsOn", [])):
            raise _refused("a dependency without a job id is for arrays")
        environment = next((one for one in self._environments() if one.name in queue.environments), None)
        if environment is None:
            raise _refused(f"Job queue {queue.name} has no compute environment")
        tags = dict(request.get("tags", {}))
        job = Job(
            id=str(uuid.uuid4()),
            number=next(self._batch.jobs.numbers),
            created=time.time(),
            request=request,
            queue=queue,
            environment=environment,
            definition=definition,
            pod=pod,
            tags=tags,
            waits_for={
                one["jobId"]
                for one in request.get("dependsOn", [])
                if "jobId" in one and not (is_array and one.get("type") == "N_TO_N")
            },
        )
        self._batch.scheduler.accept(job)
        return {"jobArn": job.arn, "jobName": job.name, "jobId": job.id}

    def _describe(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        ids = request["jobs"]
        if len(ids) > _MANY:
            raise self._wrong(f"DescribeJobs with {len(ids)} ids, at most {_MANY}")
        now, found = time.time(), []
        for one in dict.fromkeys(ids):
            job = self._batch.jobs.by_id.get(one)
            if job is None or job.queue.account != self._account or job.queue.region != self._region:
                continue
            if job.created > now - self._batch.behaviour.of(job, "invisible"):
                continue
            delay = self._batch.behaviour.of(job, "describe_delay")
            found.append(details.detail(job, job.at(now - delay) or job.first))
        return {"jobs": found}

    def _list(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        given = [key for key in ("jobQueue", "arrayJobId", "multiNodeJobId") if key in request]
        if len(given) != 1 or given[0] == "multiNodeJobId":
            raise self._wrong("ListJobs takes one of jobQueue and arrayJobId")
        filters, status = request.get("filters", []), request.get("jobStatus")
        if len(filters) > 1:
            raise self._wrong("ListJobs takes one filter")
        size = request.get("maxResults")
        if size is not None and size < 1:
            raise self._wrong("maxResults is less than 1")
        if filters:
            name, values = filters[0].get("name"), filters[0].get("values", [])
            if name not in FILTERS or not values or given[0] == "arrayJobId":
                raise self._wrong(f"there is no such filter: {filters[0]}")
            jobs = self._batch.jobs.filtered(self._queue(request["jobQueue"]).arn, name, values)
            if name != "SHARE_IDENTIFIER":
                status = None
        else:
            status = status or "RUNNING"
            jobs = self._listed(request, status)
        now = time.time()
        standings = {}

        def is_seen(job: Job) -> bool:
            standing = job.at(now - self._batch.behaviour.of(job, "list_delay"))
            if standing is not None and status in (None, standing.status):
                standings[job.id] = standing
                return True
            return False

        shown, token = page(filter(is_seen, jobs), request.get("nextToken"), size, filtered=bool(filters))
        summaries = [details.summary(job, standings[job.id]) for job in shown]
        return {"jobSummaryList": summaries, **({"nextToken": token} if token else {})}

    def _listed(self, request: dict[str, Any], status: str) -> Iterable[Job]:
        """Jobs that may have the status as it is shown, newest first."""
        if "arrayJobId" in request:
            parent = self._batch.jobs.by_id.get(request["arrayJobId"])
            return reversed(parent.children if parent is not None else [])
        queue = self._queue(request["jobQueue"]).arn
        if any("list_delay" in rule for rule in self._batch.behaviour.rules):
            return self._batch.jobs.of_queue(queue)
        return self._batch.jobs.with_status(queue, status)

    def _end(self, request: dict[str, Any], *, is_terminate: bool) -> dict[str, Any]:
        job = self._batch.jobs.by_id.get(request["jobId"])
        if len(request["reason"]) > _REASON:
            raise self._wrong(f"a reason of {len(request['reason'])} characters, at most {_REASON}")
        if job is None:
            raise _refused(f"Job {request['jobId']} does not exist")
        self._batch.scheduler.end(job, request["reason"], is_terminate=is_terminate)
        return {}

    def _end_many(self, request: dict[str, Any], *, is_terminate: bool) -> dict[str, Any]:
        """Those that are not there count as ended."""
        if len(request["jobs"]) > _BULK:
            raise self._wrong(f"{len(request['jobs'])} jobs in one call, at most {_BULK}")
        for one in request["jobs"]:
            if job := self._batch.jobs.by_id.get(one):
                self._batch.scheduler.end(job, request["reason"], is_terminate=is_terminate)
        return {"successful": request["jobs"], "errors": []}

    # --- definitions, queues, compute environments -------------------------------------------------------------------

    def _register(self, request: dict[str, Any], size: int) -> dict[str, Any]:
        self._limit(limits.of_definition(request, size))
        made = self._batch.definitions.register(request, self._account, self._region)
        return {"jobDefinitionName": made.name, "jobDefinitionArn": made.arn, "revision": made.revision}

    def _describe_definitions(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        definitions = self._batch.definitions
        if "jobDefinitions" in request:
            if len(request) > 1 or len(request["jobDefinitions"]) > _MANY:
                raise self._wrong("jobDefinitions are at most 100, and nothing else is given beside them")
            found = [definitions.find(one, self._account, self._region) for one in request["jobDefinitions"]]
            return {"jobDefinitions": [one.detail for one in found if one is not None]}
        name, status = request.get("jobDefinitionName"), request.get("status")
        found = [*definitions.named(name, self._account, self._region)]
        shown = [one.detail for one in found if one is not None and status in (None, one.detail["status"])]
        return _paged("jobDefinitions", shown, request)

    def _deregister(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        reference = request["jobDefinition"]
        if ":" not in reference.rpartition("/")[2]:
            raise self._wrong("DeregisterJobDefinition takes name:revision or an ARN")
        found = self._batch.definitions.find(reference, self._account, self._region)
        if found is None:
            raise _refused(f"Job definition {reference} does not exist")
        found.is_active = False
        return {}

    def _describe_queues(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        wanted = request.get("jobQueues")
        found = places.queues(self._config, self._account, self._region)
        shown = [one for one in found if wanted is None or {one.name, one.arn} & set(wanted)]
        return _paged("jobQueues", [one.detail(self._batch.tags.get(one.arn, {})) for one in shown], request)

    def _describe_environments(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        wanted = request.get("computeEnvironments")
        shown = [one for one in self._environments() if wanted is None or {one.name, one.arn} & set(wanted)]
        return _paged("computeEnvironments", [one.detail(self._batch.tags.get(one.arn, {})) for one in shown], request)

    # --- tags --------------------------------------------------------------------------------------------------------

    def _tag(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        self._tags(request["resourceArn"]).update(request["tags"])
        return {}

    def _untag(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        tags = self._tags(request["resourceArn"])
        for key in request["tagKeys"]:
            tags.pop(key, None)
        return {}

    def _list_tags(self, request: dict[str, Any], _size: int) -> dict[str, Any]:
        return {"tags": dict(self._tags(request["resourceArn"]))}

    def _tags(self, arn: str) -> dict[str, str]:
        """The tags of what has the ARN, to be changed in place."""
        kind, _, name = arn.removeprefix(f"arn:aws:batch:{self._region}:{self._account}:").partition("/")
        if kind == "job" and name in self._batch.jobs.by_id and ":" not in name:
            return self._batch.jobs.by_id[name].tags
        definition = self._batch.definitions.find(arn, self._account, self._region)
        if kind == "job-definition" and definition is not None:
            return definition.tags
        queues = places.queues(self._config, self._account, self._region)
        if arn in {*(one.arn for one in queues), *(one.arn for one in self._environments())}:
            return self._batch.tags.setdefault(arn, {})
        raise _refused(f"there is no resource {arn} that takes tags")

    # --- finding -----------------------------------------------------------------------------------------------------

    def _queue(self, reference: str) -> Queue:
        for queue in places.queues(self._config, self._account, self._region):
            if reference in (queue.name, queue.arn):
                return queue
        raise _refused(f"Job queue {reference} does not exist")

    def _environments(self) -> list[places.Environment]:
        return places.environments(self._config, self._account, self._region)

    def _definition(self, reference: str) -> Definition:
        found = self._batch.definitions.find(reference, self._account, self._region)
        if found is None or not found.is_active:
            raise _refused(f"Job definition {reference} does not exist or is not active")
        return found

    def _limit(self, problems: Iterable[str]) -> None:
        """A client that keeps the limits does not come to this."""
        if found := list(problems):
            raise self._wrong("; ".join(found))

    def _wrong(self, problem: str) -> Refused:
        self._batch.violate([problem])
        return _refused(problem)


def _refused(message: str) -> Refused:
    return Refused("ClientException", message, status=400)


def _paged(key: str, items: list[dict[str, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
    begin, size = int(request.get("nextToken", 0)), min(request.get("maxResults", _MANY), _MANY)
    token = {"nextToken": str(begin + size)} if len(items) > begin + size else {}
    return {key: items[begin : begin + size], **token}


_HANDLERS: Final[dict[str, Callable[[Operations, dict[str, Any], int], dict[str, Any]]]] = {
    "SubmitJob": Operations._submit,
    "DescribeJobs": Operations._describe,
    "ListJobs": Operations._list,
    "TerminateJob": lambda all_, request, _: all_._end(request, is_terminate=True),
    "CancelJob": lambda all_, request, _: all_._end(request, is_terminate=False),
    "TerminateJobs": lambda all_, request, _: all_._end_many(request, is_terminate=True),
    "CancelJobs": lambda all_, request, _: all_._end_many(request, is_terminate=False),
    "RegisterJobDefinition": Operations._register,
    "DescribeJobDefinitions": Operations._describe_definitions,
    "DeregisterJobDefinition": Operations._deregister,
    "DescribeJobQueues": Operations._describe_queues,
    "DescribeComputeEnvironments": Operations._describe_environments,
    "TagResource": Operations._tag,
    "UntagResource": Operations._untag,
    "ListTagsForResource": Operations._list_tags,
}
