"""The fixtures that the provider's tests take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.models import DagRun, TaskInstance
from airflow.models.dag_version import DagVersion
from airflow.sdk import DAG, timezone
from airflow.settings import Session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

from tests_common.test_utils import db
from tests_common.test_utils.dag import sync_dag_to_db
from tests_common.test_utils.taskinstance import create_task_instance, get_template_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from airflow.sdk import BaseOperator
    from sqlalchemy.orm import Session as OrmSession

START = timezone.datetime(2016, 1, 1)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of the provider's tests."""
    config.addinivalue_line("markers", "db_test: uses the database")
    config.addinivalue_line("markers", "execution_timeout(seconds): how long the test may take")
    config.addinivalue_line("markers", "enable_redact: with the masking of secrets")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the provider's own limit of time its meaning."""
    limit = item.get_closest_marker("execution_timeout")
    if limit is not None:
        item.add_marker(pytest.mark.timeout(limit.args[0]))


@pytest.fixture
def session() -> Iterator[OrmSession]:
    """A session of the database, rolled back at the end."""
    made = Session()
    yield made
    made.rollback()
    made.close()


@pytest.fixture
def clean_dags_dagruns_and_dagbundles() -> Iterator[None]:
    """No DAG and no run of one, before the test and after it."""
    db.clear_db_dags()
    db.clear_db_dag_bundles()
    yield
    db.clear_db_dags()
    db.clear_db_dag_bundles()


class DagMaker:
    """Makes one DAG, its rows, and runs of it."""

    def __init__(self, session: OrmSession) -> None:
        """``session`` is what runs are made with."""
        self.session = session
        self.dag: DAG | None = None

    def __call__(self, dag_id: str = "test_dag", **kwargs: Any) -> DagMaker:
        """Begin a new DAG."""
        self.dag = DAG(dag_id, **{"start_date": START} | kwargs, schedule=None)
        return self

    def __enter__(self) -> DAG:
        """Collect tasks in the DAG."""
        if self.dag is None:
            self()
        return self.dag.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make the DAG's rows, unless the block failed."""
        self.dag.__exit__(kind, error, trace)
        if kind is None:
            sync_dag_to_db(self.dag)

    def create_dagrun(self, *, run_id: str = "test", logical_date: Any = None, **_: Any) -> DagRun:
        """Make a run and a task instance for each task of the DAG."""
        moment = logical_date or START
        run = DagRun(
            dag_id=self.dag.dag_id,
            run_id=run_id,
            run_type=DagRunType.MANUAL,
            logical_date=moment,
            data_interval=(moment, moment),
            run_after=moment,
            start_date=timezone.utcnow(),
            state=DagRunState.RUNNING,
            triggered_by=DagRunTriggeredByType.TEST,
        )
        self.session.add(run)
        self.session.flush()
        version = self.session.scalar(select(DagVersion).where(DagVersion.dag_id == self.dag.dag_id))
        for task in self.dag.tasks:
            self.session.add(create_task_instance(task, run_id=run_id, dag_version_id=version.id))
        self.session.commit()
        run.dag = self.dag
        return run


@pytest.fixture
def dag_maker(session: OrmSession) -> DagMaker:
    """Makes DAGs with their rows."""
    return DagMaker(session)


class _RenderingTaskInstance(TaskInstance):
    """A row that can render its task's templates, which in Airflow 3 only a task process does."""

    def render_templates(self, context: Any = None) -> BaseOperator:
        """Render in place and give the task."""
        self.task.render_template_fields(context or get_template_context(self, self.task))
        return self.task


@pytest.fixture
def create_task_instance_of_operator(dag_maker: DagMaker) -> Callable[..., TaskInstance]:
    """Make a DAG of one task and the task's row in a run."""

    def make(operator: type[BaseOperator], *, dag_id: str, session: OrmSession, **kwargs: Any) -> Any:
        del session  # the DAG's own is the same
        with dag_maker(dag_id):
            operator(**kwargs)
        (ti,) = dag_maker.create_dagrun().task_instances
        ti.refresh_from_task(dag_maker.dag.get_task(ti.task_id))
        ti.render_templates = _RenderingTaskInstance.render_templates.__get__(ti)
        return ti

    return make
