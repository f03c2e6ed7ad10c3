"""``BatchOperator``: takes the place of the Amazon provider's operator of the same name, for jobs on EKS.

The arguments are AWS's own, as there. The job is submitted by the broker, which knows whether it did so already; its
lines come as they are written, and its end is known when it comes. The worker holds no AWS credential and polls
nothing, and the Amazon provider need not be installed.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from podbroker import ExecutionState, PodbrokerError, Policies, ResultSource
from podbroker.airflow import exceptions as ex
from podbroker.airflow import links
from podbroker.airflow._compat import AirflowException, BaseOperator, conf
from podbroker.airflow.batch_parameters import BATCH_REFUSED, BATCH_TEMPLATE_FIELDS, without_effect
from podbroker.airflow.console import links_of, place_in_aws
from podbroker.airflow.deferral import Deferrable
from podbroker.airflow.failure import exception_of_outcome, failed_containers
from podbroker.airflow.hook import PodbrokerHook
from podbroker.airflow.identity import label_value
from podbroker.airflow.jobs import features_of, workload_of
from podbroker.airflow.lines import LineSpec
from podbroker.airflow.logs import LinePrinter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from podbroker import Execution, InfraRetry
    from podbroker.airflow.console import PlaceInAws
    from podbroker.airflow.logs import ContainerChoice
    from podbroker.airflow.pump import Pump

__all__ = ["BatchOperator"]

JOB_SECONDS = 10.0
"""How long a task that defers waits for the job's id before, so that its links are there while it runs. One that takes
longer, for example because the broker has to find out what became of a submit, has its links when it comes back."""

SHOWN_CONTAINERS = 20
"""How many containers that failed are listed, of a job that may have 10,000."""


class BatchOperator(Deferrable, BaseOperator):
    """Runs an AWS Batch job on EKS at a target of the broker, and gives back its id.

    Takes every argument of the Amazon provider's operator; ``container_overrides``, ``ecs_properties_override``,
    ``node_overrides``, ``waiters``, ``verify`` and ``botocore_config`` only to refuse them with the reason.

    Args:
        job_name: What people call the job; a label of the execution. Templated.
        job_definition: Name, name:revision or ARN. Templated.
        job_queue: Name or ARN; empty: the target's. Templated.
        array_properties: ``{"size": 2 to 10,000}``. Templated.
        eks_properties_override: ``eksPropertiesOverride``. Templated.
        share_identifier: For queues with a scheduling policy.
        scheduling_priority_override: For such queues, 1 to 9,999.
        parameters: For the placeholders of the definition. Templated.
        retry_strategy: ``{"attempts": 1 to 10, "evaluateOnExit": [...]}``. Templated.
        depends_on: ``[{"jobId": ...}]``: jobs that must have succeeded before, at most 20. Templated.
        tags: Of the job. Templated.
        submit_job_timeout: Seconds that an attempt of the job may run, at least 60.
        wait_for_completion: Whether the task waits for the job's end; a task that defers does in any case. Templated.
        deferrable: Whether the job is followed in the triggerer and not in the worker. Default: the option
            ``default_deferrable`` of the section ``operators`` of Airflow's configuration.
        aws_conn_id: Without ``target``: the AWS connection whose ``role_arn`` and ``region_name`` pick the target; the
            default one does so only beside ``region_name``. Templated.
        region_name: Without ``target``: the region of the target. Templated.
        target: The target's name, or a mapping with some of ``cluster``, ``region``, ``role_arn``, ``namespace`` that
            fits exactly one target. None: the one that ``region_name`` and ``aws_conn_id`` pick, else the broker
            connection's default. Templated.
        podbroker_conn_id: The Airflow connection to the broker. Templated.
        deployment_id: Tells two Airflow installations apart that share a broker. None: the option ``deployment_id`` of
            the section ``podbroker`` of Airflow's configuration, else ``airflow``. Templated.
        get_logs: Whether the lines of all containers are printed.
        ttl: How long the job is kept when this task never acknowledges its end. None: the target's default.
        infra_retry: When the broker makes another job within the same try, after a lost node or a spot loss. Not with
            ``retry_strategy`` of more than one attempt. None: never.
        orphan_after: How long nobody may follow the job until it is ended; 5 minutes to 7 days. None: it runs on.
        reattach_on_restart: Whether a retry goes on with the job of the try before while it runs or has succeeded.
        cloudwatch_log_group: Where the cluster's own collector writes the lines of pods, for the link. Templated.
        cloudwatch_log_stream: The stream in it, with ``{job_id}``, ``{pod_name}`` and ``{pod_namespace}``. Templated.

    """

    noun = "job"
    _named: tuple[str, str] = ("", "")
    """Its id and its pod's name, as far as they are handed on."""
    ui_color = "#c3dae0"
    template_fields: Sequence[str] = (
        *BATCH_TEMPLATE_FIELDS,
        "depends_on",
        "target",
        "podbroker_conn_id",
        "deployment_id",
        "cloudwatch_log_group",
        "cloudwatch_log_stream",
    )
    template_fields_renderers = {  # noqa: RUF012 -- as Airflow declares it
        "container_overrides": "json",
        "parameters": "json",
        "ecs_properties_override": "json",
        "eks_properties_override": "json",
        "node_overrides": "json",
        "retry_strategy": "json",
        "depends_on": "json",
    }
    operator_extra_links = (
        links.BatchJobDetailsLink(),
        links.BatchJobDefinitionLink(),
        links.BatchJobQueueLink(),
        links.CloudWatchEventsLink(),
    )

    def __init__(
        self,
        *,
        job_name: str,
        job_definition: str,
        job_queue: str,
        container_overrides: dict[str, Any] | None = None,
        array_properties: dict[str, Any] | None = None,
        ecs_properties_override: dict[str, Any] | None = None,
        eks_properties_override: dict[str, Any] | None = None,
        node_overrides: dict[str, Any] | None = None,
        share_identifier: str | None = None,
        scheduling_priority_override: int | None = None,
        parameters: dict[str, str] | None = None,
        retry_strategy: dict[str, Any] | None = None,
        job_id: str | None = None,
        waiters: Any | None = None,  # noqa: ANN401 -- refused
        max_retries: int = 4200,
        status_retries: int | None = None,
        tags: dict[str, str] | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: int = 30,
        awslogs_enabled: bool = False,
        awslogs_fetch_interval: timedelta = timedelta(seconds=30),
        submit_job_timeout: int | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        depends_on: Sequence[Mapping[str, str]] | None = None,
        target: str | Mapping[str, str] | None = None,
        podbroker_conn_id: str = PodbrokerHook.default_conn_name,
        deployment_id: str | None = None,
        get_logs: bool = True,
        ttl: timedelta | None = None,
        infra_retry: InfraRetry | None = None,
        orphan_after: timedelta | None = None,
        reattach_on_restart: bool = True,
        cloudwatch_log_group: str | None = None,
        cloudwatch_log_stream: str | None = None,
        **kwargs: Any,  # noqa: ANN401 -- the arguments of BaseOperator
    ) -> None:
        """Take the arguments; neither a connection nor the broker is asked yet."""
        refused = {
            "container_overrides": container_overrides,
            "ecs_properties_override": ecs_properties_override,
            "node_overrides": node_overrides,
            "waiters": waiters,
            "verify": verify,
            "botocore_config": botocore_config,
            "region": kwargs.pop("region", None),
        }
        for name, value in refused.items():
            if value is not None and value != {}:
                message = f"BatchOperator takes no {name}: {BATCH_REFUSED[name]}"
                raise AirflowException(message)
        if orphan_after is not None and not wait_for_completion and not deferrable:
            message = "orphan_after would end the job soon after the task, since wait_for_completion is off"
            raise AirflowException(message)
        super().__init__(**kwargs)
        self.job_name = job_name
        self.job_definition = job_definition
        self.job_queue = job_queue
        self.container_overrides = container_overrides
        self.array_properties = array_properties
        self.ecs_properties_override = ecs_properties_override
        self.eks_properties_override = eks_properties_override
        self.node_overrides = node_overrides
        self.share_identifier = share_identifier
        self.scheduling_priority_override = scheduling_priority_override
        self.parameters = parameters or {}
        self.retry_strategy = retry_strategy
        self.job_id = job_id
        self.waiters = waiters
        self.max_retries = max_retries
        self.status_retries = status_retries
        self.tags = tags or {}
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.awslogs_enabled = awslogs_enabled
        self.awslogs_fetch_interval = awslogs_fetch_interval
        self.submit_job_timeout = submit_job_timeout
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.depends_on = depends_on
        self.target = target
        self.podbroker_conn_id = podbroker_conn_id
        self.deployment_id = deployment_id
        self.get_logs = get_logs
        self.ttl = ttl
        self.infra_retry = infra_retry
        self.orphan_after = orphan_after
        self.reattach_on_restart = reattach_on_restart
        self.cloudwatch_log_group = cloudwatch_log_group
        self.cloudwatch_log_stream = cloudwatch_log_stream

    @cached_property
    def hook(self) -> PodbrokerHook:
        """The connection to the broker."""
        return PodbrokerHook(self.podbroker_conn_id, target=self.target or self._picked() or None)

    def execute(self, context: Context) -> str | None:
        """Run the job and give back its id, or defer until it has ended."""
        made: str | None = self.execute_async(context) if self.deferrable else self.execute_sync(context)
        return made

    def _picked(self) -> dict[str, str]:
        """Say which target is meant by the region and by the role of the AWS connection; empty when nothing is said."""
        if not self.region_name and self.aws_conn_id in {None, "", "aws_default"}:
            return {}  # a connection that is there for other tasks means no target
        from podbroker.airflow.eks import place_of_cluster  # not needed where a target is named

        return place_of_cluster(
            cluster_name="", namespace=None, region=self.region_name, aws_conn_id=self.aws_conn_id, log=self.log
        )

    def _policies(self) -> Policies:
        return Policies(
            result=ResultSource.NONE, ttl=self.ttl, infra_retry=self.infra_retry, orphan_after=self.orphan_after
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

    def _pump_to_name(self, context: Context, *, seconds: float | None = None) -> Pump:
        """Wait, for so long at most, until the job has its id, or never will."""
        follow = self._follow = self._open(context, cursor=b"", lines=False)
        follow.run(lambda: self._is_named(follow) or follow.over(), seconds=seconds)
        if self._session is not None:
            self._session.execution = follow.execution
        self._take_name(context, follow.execution)
        follow.close()
        return follow

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
        session.release()
        if outcome.state is ExecutionState.SUCCEEDED:
            self.log.info("AWS Batch job (%s) succeeded", self.job_id)
            return self.job_id
        failed = failed_containers(outcome)
        for each in failed[:SHOWN_CONTAINERS]:
            self.log.info(
                "Container '%s': exit_code=%s, reason='%s', message='%s'",
                each.container,
                each.exit_code,
                each.reason,
                each.message,
            )
        if len(failed) > SHOWN_CONTAINERS:
            self.log.info("and %d containers more that failed", len(failed) - SHOWN_CONTAINERS)
        worst = failed[0].container if failed else ""
        raise exception_of_outcome(
            outcome,
            name=self._title,
            noun=self.noun,
            base_container=worst,
            execution_name=session.name,
            last_lines=self._printer.last_lines_of(worst),
        )

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
        failed = failed_containers(execution.outcome) if execution.outcome is not None and self.get_logs else []
        return (failed[0].container,) if failed else ()

    def _say_what_is_ignored(self) -> None:
        if ignored := without_effect(self, BatchOperator):
            self.log.info("Without effect, because nothing is polled: %s", ", ".join(ignored))
        if self.awslogs_enabled:
            self.log.info("awslogs_enabled: the lines come from the broker's own stream, and not from CloudWatch Logs")
        if self.target and self.region_name:
            self.log.info("Without effect, because target says where the job runs: region_name")
