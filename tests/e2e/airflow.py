"""A whole Airflow of the test's own: API server, scheduler and DAG processor as processes, tasks run as in production.

The scheduler starts each task in a supervised process of its own (LocalExecutor), which loads the DAG file and talks to
the API server; nothing is run in the process of the test. The database is SQLite in the folder of the run.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cluster.network import free_port
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

#: Seconds. Airflow takes about 8 on an idle machine with two cores.
START_LIMIT: Final = 300.0
FINAL: Final = frozenset({"success", "failed"})
PARTS: Final = ("api-server", "scheduler", "dag-processor")
TRIGGERER: Final = "triggerer"


@dataclass(kw_only=True)
class Airflow:
    """One installation in one folder."""

    folder: Path
    dags: Path
    broker: str
    """The broker's address, for the connection `podbroker_default`."""
    target: str
    environment: dict[str, str] = field(default_factory=dict)
    triggerers: int = 0
    """How many there are; without one, no task can defer."""

    def __post_init__(self) -> None:
        """Nothing runs yet."""
        self._port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token = ""
        self._triggerers_made = 0

    def __enter__(self) -> Self:
        """Makes the database and starts all parts."""
        try:
            self._run("db", "migrate")
            for part in PARTS:
                self._start(part)
            for _ in range(self.triggerers):
                self.add_triggerer()
            wait_for("Airflow to be healthy", self._is_healthy, within=START_LIMIT, every=0.2)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends all parts, tasks included: the parts first ask, then the kernel."""
        for process in reversed(self._processes.values()):
            process.terminate()
        deadline = time.monotonic() + 15
        for process in self._processes.values():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # A part that hangs takes its children along: it leads a session of its own.
                os.killpg(process.pid, 9)
                process.wait()

    def add_triggerer(self) -> str:
        """Starts a triggerer beside those that run, and gives its name."""
        self._triggerers_made += 1
        name = f"{TRIGGERER}-{self._triggerers_made}"
        self._start(name, TRIGGERER)
        return name

    @property
    def triggerer_names(self) -> list[str]:
        """Those that run."""
        return [name for name in self._processes if name.startswith(TRIGGERER)]

    def end(self, part: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends a part with a signal: SIGTERM as whoever stops it does, SIGKILL for all of its processes at once."""
        process = self._processes.pop(part)
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(timeout=60)

    def trigger(self, dag: str, *, conf: dict[str, Any] | None = None, run_id: str = "") -> Run:
        """Starts a run of a DAG, once the DAG is known; its id is made up if none is given."""
        wait_for(f"the DAG {dag}", lambda: self._is_known(dag), within=START_LIMIT, every=0.2)
        body = {"logical_date": None, "conf": conf or {}, "dag_run_id": run_id or f"run-{secrets.token_hex(4)}"}
        answer = self.call("POST", f"dags/{dag}/dagRuns", body)
        return Run(airflow=self, dag=dag, run=answer["dag_run_id"])

    def import_errors(self) -> list[str]:
        """What is wrong with the DAG files."""
        return [one["stack_trace"] for one in self.call("GET", "importErrors")["import_errors"]]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401  JSON
        """One call of Airflow's API."""
        if not self._token:
            self._token = self._request("GET", "auth/token", None)["access_token"]
        return self._request(method, f"api/v2/{path}", body)

    def log(self, part: str) -> str:
        """What a part has written."""
        return (self.folder / f"{part}.log").read_text(errors="replace")

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every part."""
        settings = {
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "4",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self._port}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.folder / "passwords.json"),
            # A part that waits longer than the usual 5 s for another one's write would answer a call with an error.
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.folder}/airflow.db?timeout=60",
            "LOGGING__BASE_LOG_FOLDER": str(self.folder / "logs"),
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self._port),
            "API__WORKERS": "1",
            "API__SECRET_KEY": secrets.token_hex(16),
            "API_AUTH__JWT_SECRET": _KEY,
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            # On a busy machine the import takes longer than the 30 s after which a worker gives a task back, and one
            # that was deferred then begins anew.
            "CORE__DAGBAG_IMPORT_TIMEOUT": "180",
            # Of a worker's call. The first one that a server answers can take far longer than the default of 5 s there.
            "WORKERS__EXECUTION_API_TIMEOUT": "60",
        }
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ}
        return {
            **kept,
            **{f"AIRFLOW__{key}": value for key, value in settings.items()},
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW_CONN_PODBROKER_DEFAULT": connection(self.broker, target=self.target),
            # A fork of the scheduler must not end up in a proxy's hands.
            "NO_PROXY": "127.0.0.1",
            **self.environment,
        }

    def _run(self, *arguments: str) -> None:
        with (self.folder / "setup.log").open("ab") as log:
            command = [sys.executable, "-m", "airflow", *arguments]
            subprocess.run(command, env=self.variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)

    def _start(self, part: str, command: str = "") -> None:
        with (self.folder / f"{part}.log").open("ab") as log:
            self._processes[part] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m", "airflow", command or part],
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _is_healthy(self) -> bool:
        for part, process in self._processes.items():
            if process.poll() is not None:
                raise AssertionError(f"airflow {part} ended with {process.returncode}:\n{self.log(part)[-3000:]}")
        try:
            health = self._request("GET", "api/v2/monitor/health", None)
        except (urllib.error.URLError, OSError):
            return False
        parts = ["metadatabase", "scheduler", "dag_processor", *([TRIGGERER] if self.triggerers else [])]
        return all(health[part]["status"] == "healthy" for part in parts)

    def _is_known(self, dag: str) -> bool:
        if errors := self.import_errors():
            raise AssertionError("\n".join(errors))
        try:
            self.call("GET", f"dags/{dag}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise
        return True

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:  # noqa: ANN401  JSON
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = json.dumps(body).encode() if body is not None else None
        url = f"http://127.0.0.1:{self._port}/{path}"
        with urllib.request.urlopen(
            urllib.request.Request(url, data=data, headers=headers, method=method), timeout=120
        ) as answer:
            content = answer.read()
            return json.loads(content) if content else None


def connection(address: str, *, target: str) -> str:
    """An Airflow connection to a broker, as a variable of the environment has it."""
    place = urllib.parse.urlsplit(address)
    return json.dumps(
        {
            "conn_type": "podbroker",
            "host": place.hostname,
            "port": place.port,
            "schema": place.scheme,
            "extra": {"target": target},
        }
    )


#: Signs the tokens between the parts; any value that all parts share.
_KEY: Final = secrets.token_hex(64)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a DAG."""

    airflow: Airflow
    dag: str
    run: str

    @property
    def state(self) -> str:
        """The state of the run."""
        return str(self.airflow.call("GET", self._path())["state"])

    def finish(self, *, within: float = 300.0) -> str:
        """Waits for its end and returns how it ended."""
        return wait_for(f"{self.dag} to end", lambda: self.state in FINAL and self.state, within=within) or ""

    def task(self, task: str) -> dict[str, Any]:
        """A task of it."""
        answer: dict[str, Any] = self.airflow.call("GET", self._path("taskInstances", task))
        return answer

    def states(self) -> dict[str, str]:
        """The states of its tasks, by task and map index."""
        return {name: str(task["state"]) for name, task in self._tasks().items()}

    def tries(self) -> dict[str, int]:
        """The last tries of its tasks, by task and map index."""
        return {name: int(task["try_number"]) for name, task in self._tasks().items()}

    def _tasks(self) -> dict[str, dict[str, Any]]:
        tasks: list[dict[str, Any]] = []
        while True:
            answer = self.airflow.call("GET", f"{self._path('taskInstances')}?limit=100&offset={len(tasks)}")
            tasks += answer["task_instances"]
            if not answer["task_instances"] or len(tasks) >= answer["total_entries"]:
                break
        return {f"{one['task_id']}[{one['map_index']}]": one for one in tasks}

    def clear(self, task: str) -> None:
        """Does what a person does who clears a task in the user interface."""
        body = {"dry_run": False, "task_ids": [task], "dag_run_id": self.run, "only_failed": False}
        self.airflow.call("POST", f"dags/{self.dag}/clearTaskInstances", body)

    def set_state(self, task: str, state: str) -> None:
        """Does what a person does who marks a task in the user interface."""
        self.airflow.call("PATCH", self._path("taskInstances", task), {"new_state": state})

    def delete(self) -> None:
        """Does what a person does who deletes the run: Airflow lets only a run go that is marked as ended."""
        self.airflow.call("PATCH", self._path(), {"state": "failed"})
        self.airflow.call("DELETE", self._path())

    def value(self, task: str, key: str = "return_value") -> Any:  # noqa: ANN401  JSON
        """What a task handed back."""
        return self.airflow.call("GET", self._path("taskInstances", task, "xcomEntries", key))["value"]

    def log(self, task: str, attempt: int = 1, *, map_index: int | None = None) -> list[str]:
        """The lines of the task's log, as worker and triggerers wrote them, in the order of their times."""
        mapped = f"/map_index={map_index}" if map_index is not None else ""
        folder = self.airflow.folder / f"logs/dag_id={self.dag}/run_id={self.run}/task_id={task}{mapped}"
        lines: list[tuple[str, str]] = []
        for file in sorted(folder.glob(f"attempt={attempt}.log*")):
            lines += self._lines(file)
        return [text for _, text in sorted(lines, key=lambda line: line[0])]

    def pod_lines(self, *, attempt: int = 1, task: str = "pod") -> list[str]:
        """The same lines without the prefixes that name containers."""
        return [line.rpartition("] ")[2] for line in self.log(task, attempt)]

    def count(self, text: str, *, attempt: int = 1) -> int:
        """How often the pod's line is in the task's log, with or without the prefix that names the container."""
        return self.pod_lines(attempt=attempt).count(text)

    def assert_lines(self, lines: list[str], *, attempt: int = 1) -> None:
        """The task's log holds these lines in this order, each once."""
        wanted = set(lines)
        found = [line for line in self.pod_lines(attempt=attempt) if line in wanted]
        if found != lines:
            there = Counter(found)
            lost = [line for line in lines if line not in there]
            doubled = [line for line, count in there.items() if count > 1]
            printed = self.printed("pod", attempt)
            raise AssertionError(f"lost: {lost}; doubled: {doubled}; or out of order, in:\n{printed}")

    def printed(self, task: str, attempt: int = 1) -> str:
        """All that worker and triggerers wrote, as it stands in their files."""
        folder = self.airflow.folder / f"logs/dag_id={self.dag}/run_id={self.run}/task_id={task}"
        return "\n".join(file.read_text(errors="replace") for file in sorted(folder.glob(f"attempt={attempt}.log*")))

    @staticmethod
    def _lines(file: Path) -> list[tuple[str, str]]:
        lines = []
        for line in file.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
                lines.append((str(entry["timestamp"]), str(entry["event"])))
            except (ValueError, KeyError):
                # A line that is being written.
                continue
        return lines

    def _path(self, *more: str) -> str:
        return "/".join(["dags", self.dag, "dagRuns", self.run, *more])
