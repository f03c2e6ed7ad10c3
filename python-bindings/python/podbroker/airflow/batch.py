"""``BatchOperator``: takes the place of the Amazon provider's operator of the same name, for jobs on EKS.

The arguments are AWS's own, as there. The job is submitted by the broker, which knows whether it did so already; its
lines come as they are written, and its end is known when it comes. The worker holds no AWS credential and polls
nothing, and the Amazon provider need not be installed.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from podbroker import ResultSource
from podbroker.airflow import links
from podbroker.airflow._compat import AirflowException, conf
from podbroker.airflow.batch_lifecycle import BatchLifeCycle
from podbroker.airflow.batch_parameters import BATCH_REFUSED, BATCH_TEMPLATE_FIELDS, without_effect
from podbroker.airflow.hook import PodbrokerHook
from podbroker.airflow.result import source_of_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podbroker import InfraRetry

__all__ = ["BatchOperator"]


class BatchOperator(BatchLifeCycle):
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
        result_source: ``TERMINATION_MESSAGE``: what the job writes to ``/dev/termination-log``, JSON of up to 4 KiB,
            becomes the XCom ``result`` of the task, whose own value stays the job's id. Not of an array.
        ttl: How long the job is kept when this task never acknowledges its end. None: the target's default.
        infra_retry: When the broker makes another job within the same try, after a lost node or a spot loss. Not with
            ``retry_strategy`` of more than one attempt. None: never.
        orphan_after: How long nobody may follow the job until it is ended; 5 minutes to 7 days. None: it runs on.
        reattach_on_restart: Whether a retry goes on with the job of the try before while it runs or has succeeded.
        cloudwatch_log_group: Where the cluster's own collector writes the lines of pods, for the link. Templated.
        cloudwatch_log_stream: The stream in it, with ``{job_id}``, ``{pod_name}`` and ``{pod_namespace}``. Templated.

    """

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
        result_source: ResultSource = ResultSource.NONE,
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
        source = source_of_result(result_source, known=(ResultSource.NONE, ResultSource.TERMINATION_MESSAGE))
        impossible = {
            "orphan_after would end the job soon after the task, since wait_for_completion is off": (
                orphan_after is not None and not wait_for_completion and not deferrable
            ),
            "An array has many results and result_source takes one: let the children write theirs somewhere": (
                source is not ResultSource.NONE and bool(array_properties)
            ),
        }
        for message, is_so in impossible.items():
            if is_so:
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
        self.result_source = source
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

    def _picked(self) -> dict[str, str]:
        """Say which target is meant by the region and by the role of the AWS connection; empty when nothing is said."""
        if not self.region_name and self.aws_conn_id in {None, "", "aws_default"}:
            return {}  # a connection that is there for other tasks means no target
        from podbroker.airflow.eks import place_of_cluster  # not needed where a target is named

        return place_of_cluster(
            cluster_name="", namespace=None, region=self.region_name, aws_conn_id=self.aws_conn_id, log=self.log
        )

    def _say_what_is_ignored(self) -> None:
        if ignored := without_effect(self, BatchOperator):
            self.log.info("Without effect, because nothing is polled: %s", ", ".join(ignored))
        if self.awslogs_enabled:
            self.log.info("awslogs_enabled: the lines come from the broker's own stream, and not from CloudWatch Logs")
        if self.target and self.region_name:
            self.log.info("Without effect, because target says where the job runs: region_name")
