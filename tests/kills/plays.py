"""One row being played: its task is brought to the moment, something happens, and the pod is let go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from e2e.airflow import FINAL, Run
from e2e.waiting import wait_for
from kills.cell import Kill, Lines, Mode, Moment, Pods, Verdict
from kills.holding import BACK, ON
from kills.judge import judge_executions, judge_lines, judge_pods
from kills.pods import runs
from podbroker import ExecutionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from kills.cell import Row
    from kills.stage import Stage

#: Seconds. Many tasks start at once on two cores.
_LIMIT: Final = 300.0
#: Seconds between two questions to Airflow, which has those of all rows to answer.
_EVERY: Final = 0.5
_TASK: Final = "pod"


@dataclass(kw_only=True)
class Play:
    """A row and where it stands."""

    row: Row
    stage: Stage
    verdict: Verdict = field(init=False)
    run: Run = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is started."""
        self.verdict = Verdict(row=self.row)
        self.run = Run(airflow=self.stage.airflow, dag=self.row.dag, run=self.row.name)
        self._process = 0
        self._lines = 0
        # A start that Airflow itself has failed, as it does on a machine that is too busy, is no try of the row.
        self._first = 1
        self._delivery: subprocess.Popen[str] | None = None

    # --- to the moment -----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Starts the run and brings its pod to pending or running."""
        (self.stage.signals / self.row.name).mkdir()
        self._trigger()
        if self.row.moment is Moment.PENDING:
            self._until("the pod to be pending", self._waits)
            (execution,) = self.stage.executions(self.row)
            assert execution.state is ExecutionState.PENDING, execution.state
        else:
            self._until("lines of the pod", self._prints)
        self._assert_state("deferred" if self.row.mode is Mode.DEFERRED else "running")
        if self.row.kill is Kill.REDELIVER:
            self._prepare_delivery()

    def reach(self) -> None:
        """Goes on to the moment, for those that pass soon."""
        if self.row.moment is Moment.BACK:
            self.stage.say(self.row, "go")
            back = self.stage.signals / self.row.name / BACK
            self._until("the task to be back in a worker", back.exists)
            self._assert_state("running")
        if self.row.moment is Moment.ENDING:
            self.stage.say(self.row, "go")
            self._until("the base container's last line", lambda: self._seen("last "), every=0.2)
            self._until("the end to begin", lambda: self._states() != [ExecutionState.RUNNING], every=0.1)
            assert self._states() == [ExecutionState.ENDING], self._states()
        self._lines = self._count()

    # --- what happens ------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Does what the row is about."""
        match self.row.kill:
            case Kill.TASK_TERM:
                self._signal(self._task_process(), signal.SIGTERM)
            case Kill.WORKER_TERM:
                self._signal(_parent(self._task_process()), signal.SIGTERM)
            case Kill.TASK_KILL:
                self._signal(self._task_process(), signal.SIGKILL)
            case Kill.MARK_FAILED:
                self.run.set_state(_TASK, "failed")
            case Kill.MARK_SUCCESS:
                self.run.set_state(_TASK, "success")
            case Kill.CLEAR:
                self.run.clear(_TASK)
            case Kill.RECREATE:
                self.run.delete()
                self._until("the old worker's report", self._is_reported)
                self._trigger()
            case Kill.REDELIVER:
                self._redeliver()
            case Kill.TRIGGERER_TERM | Kill.BROKER_AWAY:
                message = "happens to many rows at once, and the runner does it"
                raise AssertionError(message)

    def _prepare_delivery(self) -> None:
        """Starts a process that is slow to start, so that it is there at the moment."""
        folder = self.stage.signals / self.row.name
        self._delivery = subprocess.Popen(
            [sys.executable, "-m", "kills.redeliver", self.row.dag, self.row.name, _TASK, folder],
            env={**self.stage.airflow.variables, "AIRFLOW__CORE__LAZY_LOAD_PLUGINS": "True"},
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._until("the second delivery to be ready", (folder / "ready").exists)

    def _redeliver(self) -> None:
        assert self._delivery is not None
        self.stage.say(self.row, "deliver")
        said, _ = self._delivery.communicate(timeout=_LIMIT)
        assert self._delivery.returncode != 0, said[-2000:]
        state = "deferred" if self.row.mode is Mode.DEFERRED else "running"
        refusal = [line for line in said.splitlines() if "invalid_state" in line]
        assert any(state in line for line in refusal), refusal or said[-2000:]

    def _signal(self, process: int, number: signal.Signals) -> None:
        os.kill(process, number)
        if self.row.moment is Moment.BACK:
            self.stage.say(self.row, ON)

    def _task_process(self) -> int:
        self._process = int(self.run.task(_TASK)["pid"])
        return self._process

    # --- and then ----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Sees the row to its end. What must be ended by the kill is let go only after that."""
        match self.row.expected.pods:
            case Pods.SAME:
                self._until_followed_again()
            case Pods.ADOPTED:
                self._until("the next try", lambda: self._task()["try_number"] == self._first + 1)
            case Pods.KEPT:
                self._until("the task to have failed", lambda: self._task()["state"] == "failed")
                # Whoever would end it has had its chance: the process is gone.
                (execution,) = self.stage.executions(self.row)
                assert execution.cancel is None, "cancelled"
            case Pods.ENDED | Pods.REPLACED:
                self._until("the pod to have ended", lambda: self.stage.executions(self.row)[0].state.is_final)
        self._let_go()
        self._until("the run to end", lambda: self.run.state in FINAL)
        self._until("the pod to have ended", lambda: all(state.is_final for state in self._states()))
        # The broker may know it first.
        self._until("its containers to have ended", lambda: not any(map(runs, self.stage.witness.of(self.row.name))))

    def judge(self) -> None:
        """Compares all with what is expected."""
        verdict, expected = self.verdict, self.row.expected
        task = self._task()
        # A run that was made again counts from 1.
        before = 0 if self.row.kill is Kill.RECREATE else self._first - 1
        verdict.state, verdict.tries = str(task["state"]), int(task["try_number"]) - before
        if verdict.state != expected.state:
            verdict.problems.append(f"the task is {verdict.state}, should be {expected.state}")
        if verdict.tries != expected.tries:
            verdict.problems.append(f"{verdict.tries} tries, should be {expected.tries}")
        for attempt in range(1, verdict.tries + 1):
            which = expected.lines if attempt == verdict.tries else Lines.SO_FAR
            verdict.lines, problems = judge_lines(self.run.pod_lines(attempt=before + attempt), which)
            verdict.problems += [f"try {attempt}: {problem}" for problem in problems]
        wrong = judge_executions(self.row, self.stage.executions(self.row))
        pods = self.stage.witness.of(self.row.name)
        wrong += judge_pods(self.row, pods)
        verdict.pods = expected.pods.value if not wrong else "; ".join(wrong)
        verdict.problems += wrong

    def tidy_up(self) -> None:
        """Ends what a row leaves that has failed, so that it holds up no other."""
        if self._delivery is not None:
            self._delivery.kill()
            self._delivery.wait()
        self._let_go()
        attempts = range(1, self._first + max(1, self.verdict.tries))
        self.verdict.log += "".join(f"--- try {at}\n{self.run.printed(_TASK, at)[-6000:]}\n" for at in attempts)

    def _let_go(self) -> None:
        if self.row.moment is Moment.PENDING:
            self.stage.open_node(self.row)
        for word in ("go", "end", ON):
            self.stage.say(self.row, word)

    def _until_followed_again(self) -> None:
        """Waits until the next one follows the pod, where there is a next one."""
        if self.row.kill in {Kill.TASK_TERM, Kill.WORKER_TERM}:
            self._until("the next process", lambda: self._task()["pid"] not in {None, self._process})
        elif self.row.moment is Moment.RUNNING:
            self._until("more lines", lambda: self._count() >= self._lines + 5)

    def _is_reported(self) -> bool:
        """Whether the scheduler has heard of the end of the worker, which it takes for one of the next run's too."""
        lines = self.stage.airflow.log("scheduler").splitlines()
        return any("Received executor event" in line and f"run_id='{self.row.name}'" in line for line in lines)

    # --- questions ---------------------------------------------------------------------------------------------------

    def _trigger(self) -> None:
        conf = {"connection": self.stage.connection_of(self.row)}
        self.stage.airflow.trigger(self.row.dag, conf=conf, run_id=self.row.name)

    def _until(self, what: str, condition: Callable[[], Any], *, every: float = _EVERY) -> None:
        def asked() -> Any:  # noqa: ANN401  whatever is true
            try:
                return condition()
            except urllib.error.HTTPError as error:
                # A server error on a busy machine; a run that is just being made has no task yet.
                if error.code in {404, 500, 503}:
                    return None
                raise

        wait_for(what, asked, within=_LIMIT, every=every)

    def _task(self) -> dict[str, Any]:
        return self.run.task(_TASK)

    def _assert_state(self, state: str) -> None:
        self._until(f"the task to be {state}", lambda: self._task()["state"] == state)

    def _states(self) -> list[ExecutionState]:
        return [one.state for one in self.stage.executions(self.row)]

    def _waits(self) -> bool:
        self._first = max(1, int(self._task()["try_number"]))
        return "Waiting for pod" in self.run.printed(_TASK, self._first)

    def _prints(self) -> bool:
        self._first = max(1, int(self._task()["try_number"]))
        return self._count() >= 5

    def _count(self) -> int:
        return sum(line.startswith("line ") for line in self.run.pod_lines(attempt=self._first))

    def _seen(self, beginning: str) -> bool:
        return any(line.startswith(beginning) for line in self.run.pod_lines(attempt=self._first))


def _parent(process: int) -> int:
    """The process that has started it: a worker of the LocalExecutor, which supervises the task."""
    status = Path(f"/proc/{process}/status").read_text()
    (parent,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
    command = Path(f"/proc/{parent}/cmdline").read_text()
    assert "worker -- LocalExecutor" in command, command
    return parent
