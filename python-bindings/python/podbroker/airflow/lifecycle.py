"""The life cycle of an operator: submitted, followed, settled, in one process or in several, whatever it runs.

One submit, one stream, one acknowledgement. A synchronous task follows its execution in the worker; a deferred one
leaves that to a trigger and comes back when it has ended. What is said and read for a pod or for a job on the way is
the business of the classes below this one.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

from podbroker import GroupAction
from podbroker.airflow import ending
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowTaskTerminated, AirflowTaskTimeout, conf
from podbroker.airflow.earlier import plan
from podbroker.airflow.identity import execution_id, execution_labels, group_labels, group_of, run_start
from podbroker.airflow.pump import Pump
from podbroker.airflow.request import new_request
from podbroker.airflow.result import take_position
from podbroker.airflow.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from functools import cached_property

    from airflow.sdk import Context

    from podbroker import BatchWorkload, Execution, Policies
    from podbroker.airflow._compat import BaseOperator
    from podbroker.airflow.hook import PodbrokerHook
    from podbroker.airflow.logs import LinePrinter
    from podbroker.airflow.request import JobManifest, Request

    _Operator = BaseOperator
else:
    # Beside an operator of Airflow or of a provider, whose constructor is the one that counts.
    _Operator = object

__all__ = ["LifeCycle", "reschedules"]


class LifeCycle(_Operator):
    """What an operator does with its one execution."""

    noun = "pod"
    """What the execution is called in the task log."""

    deferrable: bool
    deployment_id: str | None
    reattach_on_restart: bool
    _killed: bool = False
    _session: Session | None = None
    _follow: Pump | None = None
    _settled: bool = False
    _printed_elsewhere: bytes = b""
    """Up to where a trigger has printed the lines, until this process prints some."""

    if TYPE_CHECKING:

        @cached_property
        def hook(self) -> PodbrokerHook:
            """The connection to the broker."""

        @cached_property
        def _printer(self) -> LinePrinter:
            """Prints the lines, and keeps the last ones."""

    # What differs by what is run.

    def _start(self, context: Context) -> Execution:
        """Start the execution, or find the one to go on with."""
        raise NotImplementedError

    def _policies(self) -> Policies:
        """Say how it is to be run."""
        raise NotImplementedError

    def _labels(self, context: Context) -> dict[str, str]:
        """Give the labels of the execution."""
        return execution_labels(context, deployment_id=self.deployment)

    def _is_named(self, follow: Pump) -> bool:
        """Tell whether it is known what the cluster calls it."""
        raise NotImplementedError

    def _take_name(self, context: Context, execution: Execution) -> None:
        """Hand on what the cluster calls it, as far as that is known; called again when more is."""
        raise NotImplementedError

    def _started(self, context: Context, follow: Pump) -> None:
        """Note that it runs, or never will."""

    def _settle(self, context: Context, follow: Pump) -> Any:  # noqa: ANN401 -- as execute
        """Take the end over, acknowledge it, and give the task's value or raise."""
        raise NotImplementedError

    @property
    def _title(self) -> str:
        """What people know it by, for messages."""
        raise NotImplementedError

    # The way of a task.

    def execute_sync(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        """Run to the end in this process."""
        with self._settling(context):
            self._start(context)
            return self._follow_to_end(context)

    def on_kill(self) -> None:
        """Note that the task was told to end. What that means is found out by the pump, outside the signal handler."""
        self._killed = True
        follow = self._follow
        if follow is not None:
            follow.wake()

    @property
    def known_execution(self) -> Execution | None:
        """The execution as it was last heard of; None before there is one. Asks nobody."""
        if self._follow is not None:
            return self._follow.execution
        return self._session.execution if self._session is not None else None

    @contextlib.contextmanager
    def _settling(self, context: Context) -> Iterator[None]:
        """Do for the execution what the way means on which this process of the task ends."""
        try:
            yield
        except AirflowTaskTimeout:
            self._settled = True
            ending.cancel(
                session=self._session,
                follow=self._follow,
                reason="The execution_timeout of the Airflow task has passed",
            )
            raise
        except AirflowTaskTerminated:  # Airflow 2.11 raises it in its signal handler, after on_kill
            self._settle_kill(context)
        finally:
            if self._follow is not None:
                self._follow.close()

    def _new_session(
        self,
        workload: Mapping[str, Any] | BatchWorkload | JobManifest,
        context: Context,
        *,
        required_features: tuple[str, ...] = (),
    ) -> tuple[Session, bool]:
        """Prepare to submit, and tell whether the broker knows groups."""
        self._session = session = Session(
            client=self.hook.conn,
            request=self._request_of(workload, context, required_features=required_features),
            log=self.log,
            checkpoint=lambda: self._checkpoint(context),
            noun=self.noun,
        )
        has_groups = session.knows_groups()
        if has_groups:
            session.join(group_of(context, deployment_id=self.deployment, action=GroupAction.ATTACH))
        return session, has_groups

    def _request_of(
        self,
        workload: Mapping[str, Any] | BatchWorkload | JobManifest,
        context: Context,
        *,
        required_features: tuple[str, ...] = (),
    ) -> Request:
        return new_request(
            target=self.hook.target,
            execution_id=execution_id(context, deployment_id=self.deployment),
            workload=workload,
            labels=self._labels(context),
            policies=self._policies(),
            required_features=required_features,
        )

    def _submit(self, session: Session, context: Context, *, has_groups: bool) -> Execution:
        """Start the execution of this try, after what earlier tries have left behind was adopted or ended."""
        execution = None
        if context["ti"].try_number > 1:
            execution = self._meet_earlier(session, context, has_groups=has_groups)
        if execution is None:
            execution = session.submit(look_first=reschedules(context) > 0)
        self.log.info("Execution: %s", execution.name)
        # Of one that was rescheduled, the place that it has kept says whether.
        if session.is_found and not reschedules(context) and self._printer.wanted is not None:
            self.log.info("Lines that an earlier process of the task has printed may come again below")
        return execution

    def _known(self) -> Execution:
        session = self._session
        if session is None or session.execution is None:
            message = "There is no execution to follow: none was made"
            raise ex.RemotePodError(message)
        return session.execution

    def _follow_to_end(self, context: Context, *, cursor: bytes = b"") -> Any:  # noqa: ANN401 -- as execute
        follow = self._follow = self._open(context, cursor=cursor)
        if not follow.started():
            follow.open_group(f"Waiting for {self.noun} {self._title} to start")
        self._pump(until=lambda: self._is_named(follow) or follow.started())
        self._take_name(context, follow.execution)
        self._pump(until=follow.started)
        follow.close_group()
        self._take_name(context, follow.execution)
        self._started(context, follow)
        self._pump(until=follow.over)
        return self._settle(context, follow)

    def _pump(self, *, until: Callable[[], bool]) -> None:
        """Handle what comes on the one stream until the predicate holds."""
        if self._follow is not None:
            self._follow.run(until)

    def _pump_to_name(self, context: Context, *, seconds: float | None = None) -> Pump:
        """Wait, for so long at most, until it is known what the cluster calls it, or that it never will be."""
        follow = self._follow = self._open(context, cursor=b"", lines=False)
        follow.run(lambda: self._is_named(follow) or follow.over(), seconds=seconds)
        if self._session is not None:
            self._session.execution = follow.execution
        self._take_name(context, follow.execution)
        follow.close()
        return follow

    def _open(self, context: Context, *, cursor: bytes, lines: bool = True) -> Pump:
        session, execution = self._session, self._known()
        if session is None:
            message = "There is no execution to follow"
            raise ex.RemotePodError(message)
        if lines:
            self._printed_elsewhere = b""
        wanted = self._printer.wanted if lines else None
        return Pump(
            open_watch=lambda cursor: session.watch(cursor=cursor, containers=wanted),
            cursor=(self._kept_position(context) or cursor) if lines else cursor,
            execution=execution,
            printer=self._printer,
            log=self.log,
            checkpoint=lambda: self._checkpoint(context),
            noun=self.noun,
        )

    def _kept_position(self, context: Context) -> bytes:
        """Read how far the process came that was drained before this one."""
        if reschedules(context) == 0 or self._session is None:
            return b""
        cursor = take_position(context, name=self._session.name)
        if not cursor:
            self.log.info("The place in the log was not kept: lines from before the reschedule are printed again")
        return cursor

    @property
    def deployment(self) -> str:
        """What tells this Airflow installation apart at the broker."""
        return self.deployment_id or conf.get("podbroker", "deployment_id", fallback="airflow")

    def _meet_earlier(self, session: Session, context: Context, *, has_groups: bool) -> Execution | None:
        """Adopt or end what earlier tries of this task instance left behind."""
        decided = plan(
            session.earlier(group_labels(context, deployment_id=self.deployment)),
            own_id=execution_id(context, deployment_id=self.deployment),
            reattach=self.reattach_on_restart,
            not_before=run_start(context),
            max_tries=getattr(context["ti"], "max_tries", None),
        )
        for execution in decided.end:
            ending.end_earlier(
                session.other(execution),
                printer=self._printer,
                log=self.log,
                reason="A new try of the Airflow task takes its place",
            )
        if decided.adopt is not None:
            self.log.info("Adopting execution %s of an earlier try", decided.adopt.name)
            if not session.shares_group(decided.adopt):
                return session.adopt(decided.adopt)
        elif has_groups:
            session.join(group_of(context, deployment_id=self.deployment, action=decided.action))
        return None

    # Kill.

    def _checkpoint(self, context: Context) -> None:
        if self._killed and not self._settled:
            self._settle_kill(context)

    def _settle_kill(self, context: Context) -> NoReturn:
        self._settled = True
        ending.settle_kill(
            context=context,
            session=self._session,
            follow=self._follow,
            place=self._printed_elsewhere or (self._follow.cursor if self._follow is not None else b""),
            log=self.log,
            keep=self.keeps_on_kill,
            noun=self.noun,
        )

    @property
    def keeps_on_kill(self) -> bool:
        """Whether a kill leaves the execution alone."""
        return getattr(getattr(self, "on_kill_action", None), "value", None) == "keep_pod"


def reschedules(context: Context) -> int:
    """How often this try was rescheduled: more than 0 means that an earlier process of it was here."""
    return int(context.get("task_reschedule_count") or 0)
