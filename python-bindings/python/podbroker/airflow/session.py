"""One execution as a task process deals with it: made or found, followed, cancelled, released.

It holds the request, so that it can be repeated unchanged, and what the broker answered. A broker that does not answer
is asked again for a while; in between ``checkpoint`` may raise, so that a task that was told to end does not wait for
it. Nothing here knows Airflow's context; what an answer means for the task is the operator's business.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from podbroker import ConflictError, NotFoundError, PodbrokerError, Policies, UnavailableError
from podbroker.airflow.failure import exception_of_error
from podbroker.airflow.identity import execution_name
from podbroker.airflow.request import IN_GROUP, in_group, new_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from airflow.sdk._shared.logging.types import Logger

    from podbroker import Execution, ExecutionPage, Group, Submission
    from podbroker.airflow.pump import WatchProtocol
    from podbroker.airflow.request import ClientProtocol, Request

__all__ = ["Session", "ask"]

ANSWER_SECONDS = 120.0
"""How long a broker that is away is waited for at submit: longer than a rolling update of it takes."""

RELEASE_SECONDS = 30.0
"""How long a release is tried. If it fails, the execution's ttl does the same later."""

CANCEL_SECONDS = 3.0
"""How long a cancel is tried: the supervisor gives a killed task 5 s."""

PAUSE_SECONDS = 1.0
"""Between two calls to a broker that is away; the client itself has backed off before."""

PAGE_SIZE = 200

SUPERSEDED = "CLAIM_SUPERSEDED"
"""The reason of a refusal: a later submit of the group holds the execution."""

T = TypeVar("T")


def ask(do: Callable[[], T], *, seconds: float, checkpoint: Callable[[], None] | None = None) -> T:
    """Make a call, again and again for ``seconds`` while nobody answers. ``checkpoint`` may raise before each try."""
    deadline = time.monotonic() + seconds
    while True:
        if checkpoint is not None:
            checkpoint()
        try:
            return do()
        except UnavailableError:
            if time.monotonic() + PAUSE_SECONDS >= deadline:
                raise
        time.sleep(PAUSE_SECONDS)


class Session:
    """The execution of one task try, or the one that it adopted."""

    def __init__(
        self,
        *,
        client: ClientProtocol,
        request: Request,
        log: Logger,
        checkpoint: Callable[[], None],
        noun: str = "pod",
    ) -> None:
        """Prepare; nothing is sent yet. ``noun`` is what messages call it."""
        self._client = client
        self._request = request
        self._log = log
        self.checkpoint = checkpoint
        self.noun = noun
        self._claim = ""
        self._name = ""
        self._sent = False
        self.execution: Execution | None = None
        self.is_found = False
        """Whether an earlier process of the task had made the execution."""

    @property
    def name(self) -> str:
        """The broker's address of the execution; empty while none is known."""
        return self.execution.name if self.execution is not None else self._name

    @classmethod
    def resume(
        cls,
        *,
        client: ClientProtocol,
        name: str,
        claim: str,
        log: Logger,
        checkpoint: Callable[[], None],
        noun: str = "pod",
    ) -> Session:
        """Go on with an execution that an earlier process of this try holds by ``claim``. Asks nobody: see ``load``."""
        nothing = new_request(target="", execution_id="", workload={}, labels={}, policies=Policies())
        session = cls(client=client, request=nothing, log=log, checkpoint=checkpoint, noun=noun)
        session._name, session._claim = name, claim
        return session

    def load(self) -> None:
        """Read the execution that is gone on with. It can be cancelled before that."""
        try:
            self.execution = ask(
                lambda: self._client.get(self.name), seconds=ANSWER_SECONDS, checkpoint=self.checkpoint
            )
        except PodbrokerError as error:
            raise exception_of_error(error, doing=f"The {self.noun} of the deferred task is not found") from error

    @property
    def claim(self) -> str:
        """Says that this task instance holds the execution; empty for one that is only followed."""
        return self._claim

    def find(self) -> bool:
        """Look for the execution that an earlier process of this try started, and create none."""
        try:
            self._settle(seconds=ANSWER_SECONDS)
        except NotFoundError:
            return False
        except PodbrokerError as error:
            raise exception_of_error(error, doing=f"The {self.noun} of the deferred task is not found") from error
        return True

    def knows_groups(self) -> bool:
        """Ask whether the broker has the feature; an older one has not."""
        try:
            info = ask(self._client.server_info, seconds=ANSWER_SECONDS, checkpoint=self.checkpoint)
        except PodbrokerError as error:
            raise exception_of_error(error, doing=f"The {self.noun} was not started") from error
        return "group" in info.features

    def join(self, group: Group) -> None:
        """Submit to this group, in which the tries of the task instance take each other's place."""
        self._request = in_group(self._request, group)

    def shares_group(self, execution: Execution) -> bool:
        """Whether a submit can attach to the execution; one that was submitted to no group is only followed."""
        return self._request.group is not None and IN_GROUP in execution.labels

    def submit(self, *, look_first: bool) -> Execution:
        """Start the execution, or find the one that an earlier process of this try started.

        ``look_first``: an earlier process has been here, maybe longer ago than the submit window.
        """
        try:
            try:
                submission = self._submit(look_first=look_first)
            except ConflictError:
                execution = self.adopt(self._own())
                self._log.warning(
                    "Execution %s exists, and its request differs from the one of now: following it as it is", self.name
                )
                return execution
        except PodbrokerError as error:
            raise exception_of_error(error, doing=f"The {self.noun} was not started") from error
        self._claim = submission.claim
        self.execution = submission.execution
        self.is_found = not submission.created
        if self.is_found:
            self._log.info("Going on with execution %s, which exists already", self.name)
        return self.execution

    def adopt(self, execution: Execution) -> Execution:
        """Follow an execution that this process did not start."""
        self._claim = ""
        self.execution = execution
        self.is_found = True
        return execution

    def earlier(self, labels: Mapping[str, str]) -> list[Execution]:
        """List the executions that have the labels."""
        found: list[Execution] = []
        token = ""
        while True:
            try:
                page = self._ask_page(labels, token)
            except PodbrokerError as error:
                raise exception_of_error(error, doing="Earlier executions cannot be listed") from error
            found += page.executions
            token = page.next_page_token
            if not token:
                return found

    def read(self) -> Execution | None:
        """Read the execution with its pod; None when it is gone or nobody answers."""
        if self.execution is None:
            return None
        try:
            return ask(lambda: self._client.get(self.name, full=True), seconds=RELEASE_SECONDS)
        except PodbrokerError as error:
            self._log.warning("The %s of %s cannot be read: %s", self.noun, self.name, error)
            return None

    def cancel(self, reason: str) -> bool:
        """Ask for the execution's end. True when the broker has it. Settles a submit whose answer was lost before."""
        try:
            if not self.name:
                self._settle()
            ask(lambda: self._client.cancel(self.name, claim=self._claim, reason=reason), seconds=CANCEL_SECONDS)
        except NotFoundError:
            return True
        except PodbrokerError as error:
            if error.reason == SUPERSEDED:
                self._log.info("Execution %s belongs to a later try now: it is not cancelled", self.name)
                return True
            self._log.error("Execution %s could not be cancelled and may run on: %s", self.name or "of this try", error)
            return False
        self._log.info("Execution %s is being cancelled: %s", self.name, reason)
        return True

    def release(self) -> None:
        """Say that the outcome was taken over, so that the finish policy applies. Never fails the task."""
        try:
            ask(lambda: self._client.release(self.name, claim=self._claim), seconds=RELEASE_SECONDS)
        except NotFoundError:
            return
        except PodbrokerError as error:
            if error.reason == SUPERSEDED:
                self._log.info("Execution %s belongs to a later try now: it is not released", self.name)
                return
            self._log.warning("Execution %s was not released; its ttl will do: %s", self.name, error)

    def other(self, execution: Execution) -> Session:
        """Make a session on another execution of the same target."""
        session = Session(
            client=self._client,
            request=self._request,
            log=self._log,
            checkpoint=self.checkpoint,
            noun=self.noun,
        )
        session.adopt(execution)
        return session

    def watch(self, *, cursor: bytes, containers: tuple[str, ...] | None, tail_lines: int = 0) -> WatchProtocol:
        """Follow the execution. ``containers`` is empty for all of them, None for no lines."""
        return self._client.watch(
            self.name,
            cursor=cursor,
            logs=containers is not None,
            containers=containers or (),
            tail_lines=tail_lines,
        )

    def open_log(self, *, containers: tuple[str, ...], tail_lines: int, since: datetime | None) -> WatchProtocol | None:
        """Open a watch that ends with the lines so far; None while there is no execution."""
        if not self.name:
            return None
        return self._client.watch(self.name, containers=containers, tail_lines=tail_lines, since=since, follow=False)

    def _submit(self, *, look_first: bool) -> Submission:
        if look_first:
            try:
                return ask(lambda: self._send(must_exist=True), seconds=ANSWER_SECONDS, checkpoint=self.checkpoint)
            except NotFoundError as error:
                if error.reason == "NO_SUCH_TARGET":
                    raise
        return ask(lambda: self._send(must_exist=False), seconds=ANSWER_SECONDS, checkpoint=self.checkpoint)

    def _send(self, *, must_exist: bool) -> Submission:
        self._sent = self._sent or not must_exist
        return self._client.submit(
            target=self._request.target,
            execution_id=self._request.execution_id,
            pod=self._request.pod,
            batch=self._request.batch,
            job=self._request.job,
            submit_before=self._request.submit_before,
            labels=self._request.labels,
            policies=self._request.policies,
            group=self._request.group,
            required_features=self._request.required_features,
            must_exist=must_exist,
        )

    def _settle(self, *, seconds: float | None = None) -> None:
        """Find out what became of the submit.

        One that was sent may still arrive; only repeating it makes sure that there is something to cancel.
        """
        must_exist = not self._sent
        try:
            submission = ask(
                lambda: self._send(must_exist=must_exist), seconds=CANCEL_SECONDS if seconds is None else seconds
            )
        except ConflictError:
            self.adopt(self._own())
        else:
            self.execution, self._claim = submission.execution, submission.claim

    def _own(self) -> Execution:
        """Read the execution that has the id of this try, whatever its request was."""
        name = execution_name(self._request.target, self._request.execution_id)
        if name is not None:
            return ask(lambda: self._client.get(name), seconds=CANCEL_SECONDS)
        for execution in self.earlier({}):
            if execution.execution_id == self._request.execution_id:
                return execution
        message = f"Execution {self._request.execution_id} is not listed"
        raise NotFoundError(message, reason="NO_SUCH_EXECUTION")

    def _ask_page(self, labels: Mapping[str, str], token: str) -> ExecutionPage:
        return ask(
            lambda: self._client.list(self._request.target, labels=labels, page_size=PAGE_SIZE, page_token=token),
            seconds=ANSWER_SECONDS,
            checkpoint=self.checkpoint,
        )
