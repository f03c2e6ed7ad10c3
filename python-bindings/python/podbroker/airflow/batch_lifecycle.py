"""The life cycle of a job of AWS Batch: its id and links as soon as they are known, its lines, value and verdict."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from podbroker import ExecutionState, PodbrokerError, Policies, ResultSource
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import BaseOperator
from podbroker.airflow.console import links_of, place_in_aws
from podbroker.airflow.deferral import Deferrable
from podbroker.airflow.failure import exception_of_job, first_that_failed
from podbroker.airflow.identity import label_value
from podbroker.airflow.jobs import features_of, workload_of
from podbroker.airflow.lines import LineSpec
from podbroker.airflow.logs import LinePrinter
from podbroker.airflow.result import read_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow.sdk import Context

    from podbroker import Execution, InfraRetry
    from podbroker.airflow.console import PlaceInAws
    from podbroker.airflow.exceptions import RemotePodResultError
    from podbroker.airflow.logs import ContainerChoice
    from podbroker.airflow.pump import Pump

__all__ = ["BatchLifeCycle"]

JOB_SECONDS = 10.0
"""How long a task that defers waits for the job's id before, so that its links are there while it runs. One that takes
longer, for example because the broker has to find out what became of a submit, has its links when it comes back."""

RESULT_KEY = "result"
"""The XCom of what a job hands back. The value of the task itself is the job's id, as with the Amazon provider."""


class BatchLifeCycle(Deferrable, BaseOperator):
    """What ``BatchOperator`` does with its job."""

    noun = "job"
    _named: tuple[str, str] = ("", "")
    """Its id and its pod's name, as far as they are handed on."""

    job_name: str
    job_definition: str
    job_queue: str
    job_id: str | None
    array_properties: dict[str, Any] | None
    eks_properties_override: dict[str, Any] | None
    share_identifier: str | None
    scheduling_priority_override: int | None
    parameters: dict[str, str]
    retry_strategy: dict[str, Any] | None
    depends_on: Sequence[Mapping[str, str]] | None
    tags: dict[str, str]
    submit_job_timeout: int | None
    wait_for_completion: bool
    region_name: str | None
    get_logs: bool
    result_source: ResultSource
    ttl: timedelta | None
    infra_retry: InfraRetry | None
    orphan_after: timedelta | None
    cloudwatch_log_group: str | None
    cloudwatch_log_stream: str | None

    def _say_what_is_ignored(self) -> None:
        """Name in the log what was given and does nothing."""
        raise NotImplementedError

    def execute(self, context: Context) -> str | None:
        """Run the job and give back its id, or defer until it has ended."""
        made: str | None = self.execute_async(context) if self.deferrable else self.execute_sync(context)
        return made

    def _policies(self) -> Policies:
        return Policies(
            result=self.result_source, ttl=self.ttl, infra_retry=self.infra_retry, orphan_after=self.orphan_after
        )

    def _labels(self, context: Context) -> dict[str, str]:
        return {**super()._labels(context), "job_name": label_value(self.job_name)}

    def _make_session(self, context: Context) -> None:
        workload = workload_of(self)
        self._new_session(workload, context, required_features=features_of(workload))

    def _start(self, context: Context) -> Execution:
        self._say_what_is_ignored()
        workload = workload_of(self)
        session, has_groups = self._new_session(workload, context, required_features=features_of(workload))
        self._take_name(context, self._submit(session, context, has_groups=has_groups))
        if self.deferrable and not self._named[0] and not self._known().state.is_final:
            self._pump_to_name(context, seconds=JOB_SECONDS)
            self._follow = None
        return self._known()

    def _follow_to_end(self, context: Context, *, cursor: bytes = b"") -> Any:  # noqa: ANN401 -- as execute
        if self.wait_for_completion or self.deferrable:
            return super()._follow_to_end(context, cursor=cursor)
        if not self._named[0]:
            follow = self._pump_to_name(context)
            if not self._named[0]:
                return self._settle(context, follow)
        self.log.info("AWS Batch job %s is not waited for", self.job_id)
        return self.job_id

    def _is_named(self, follow: Pump) -> bool:
        return follow.attempt is not None and bool(follow.attempt.batch_job_id)

    def _take_name(self, context: Context, execution: Execution) -> None:
        """Take the job's id over, and push what the links are made of as soon as it is known."""
        attempt = execution.attempts[-1] if execution.attempts else None
        if attempt is None or not attempt.batch_job_id:
            return
        named = (attempt.batch_job_id, attempt.pod_name)
        if named == self._named:
            return
        self._named = named
        self.job_id = attempt.batch_job_id
        place = self._place(execution) if self.do_xcom_push else None
        if place is not None:
            for key, value in links_of(self, place=place, attempt=attempt).items():
                context["ti"].xcom_push(key=key, value=value)

    def _place(self, execution: Execution) -> PlaceInAws | None:
        """Find out where in AWS the job is: from the target, else from what the arguments say."""
        try:
            targets = self.hook.conn.targets()
        except PodbrokerError as error:
            self.log.info("The target is not known, and the links may lack: %s", error)
            targets = ()
        here = next((each.place for each in targets if each.name == execution.target), None)
        return place_in_aws(
            region=(here.region if here is not None else "") or self.region_name or "",
            arns=(self.job_queue or "", self.job_definition, here.role_arn if here is not None else ""),
        )

    def _settle(self, context: Context, follow: Pump) -> Any:  # noqa: ANN401 -- as execute
        self._take_name(context, follow.execution)
        outcome, session = follow.outcome, self._session
        if outcome is None or session is None:
            message = "The broker says that the job has ended, and not how"
            raise ex.RemotePodError(message)
        problem = self._push_result(context, follow)
        session.release()
        if outcome.state is ExecutionState.SUCCEEDED:
            self.log.info("AWS Batch job (%s) succeeded", self.job_id)
            if problem is not None:
                raise problem
            return self.job_id
        raise exception_of_job(
            outcome,
            name=self._title,
            noun=self.noun,
            execution_name=session.name,
            last_lines_of=self._printer.last_lines_of,
            log=self.log,
        )

    def _push_result(self, context: Context, follow: Pump) -> RemotePodResultError | None:
        """Push what the job has handed back, also of one that failed; give what is wrong with it."""
        if self.result_source is ResultSource.NONE:
            return None
        value, problem = read_result(follow, log=self.log, noun=self.noun)
        if value is not None and self.do_xcom_push:
            context["ti"].xcom_push(key=RESULT_KEY, value=value)
        return problem

    @property
    def _title(self) -> str:
        return self._named[0] or self.job_name

    @cached_property
    def _printer(self) -> LinePrinter:
        wanted: ContainerChoice = True if self.get_logs else None
        return LinePrinter(log=self.log, base_container="", containers=wanted, init_containers=wanted, prefix=True)

    def _resume(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002 -- the execution says more
        self._take_name(context, self._known())

    def _line_spec(self) -> LineSpec | None:
        if not self.get_logs:
            return None
        return LineSpec.of(
            base_container="",
            containers=True,
            init_containers=True,
            prefix=True,
            formatter=None,
            callbacks=(),
            progress=None,
        )

    def _last_words_of(self, execution: Execution) -> tuple[str, ...]:
        return first_that_failed(execution.outcome) if execution.outcome is not None and self.get_logs else ()
