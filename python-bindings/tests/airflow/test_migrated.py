"""What the migration says holds for the operators that it points to."""

from __future__ import annotations

import importlib
import inspect

import pytest
from versions import DagBag, on_airflow_3

from podbroker.airflow import EksPodOperator, RemotePodOperator
from podbroker.airflow._compat import KubernetesPodOperator
from podbroker.airflow._compat_jobs import KubernetesJobOperator
from podbroker.airflow.batch_parameters import BATCH_REFUSED as refused_by_batch  # noqa: N811
from podbroker.airflow.get_provider_info import get_provider_info
from podbroker.airflow.kube_job import RemoteJobOperator
from podbroker.airflow.parameters import PARAMETERS, Verdict
from podbroker.migrate.analysis import analyse
from podbroker.migrate.names import (
    BATCH_REFUSED,
    DECORATORS,
    GONE,
    NEW_MODULE,
    OPERATORS,
    OURS,
    OWNED_METHODS,
    REFUSED,
    WITHOUT_EFFECT,
    Kind,
)

DAG = """
from airflow.sdk import DAG, task
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
import airflow.providers.cncf.kubernetes.operators.pod as pods

with DAG("migrated", schedule=None):
    KubernetesPodOperator(task_id="one", image="i", cmds=["true"])
    pods.KubernetesPodOperator.partial(task_id="many", image="i").expand(arguments=[["a"], ["b"]])

    @task.kubernetes(image="i")
    def function(): ...

    @task.kubernetes_cmd(image="i")
    def command(): ...

    function()
    command()
"""

VALUES = {
    "poll_interval": 3.0,
    "logging_interval": 3,
    "startup_check_interval_seconds": 3,
    "trigger_kwargs": {"a": 1},
    "job_poll_interval": 3.0,
    "discover_pods_retry_number": 3,
}


def arguments_of(operator: type) -> set[str]:
    """Those of a class alone, without its parents'."""
    return set(inspect.signature(operator.__init__).parameters)


@on_airflow_3
def test_a_dag_of_upstreams_is_ours_after_the_rewriting(tmp_path):
    path = tmp_path / "migrated.py"
    path.write_bytes(analyse(DAG.encode()).new)
    bag = DagBag(dag_folder=str(path))
    assert bag.import_errors == {}
    tasks = {task.task_id: task for task in bag.dags["migrated"].tasks}
    kinds = {name: getattr(task, "operator_class", type(task)) for name, task in tasks.items()}
    assert kinds.keys() == {"one", "many", "function", "command"}
    assert all(issubclass(kind, RemotePodOperator) for kind in kinds.values())


def test_every_new_name_exists():
    for path in OURS:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
    decorators = {each["name"] for each in get_provider_info()["task-decorators"]}
    assert decorators == set(DECORATORS.values())


def test_the_newest_old_names_are_those_of_the_installed_provider():
    assert OPERATORS[f"{KubernetesPodOperator.__module__}.{KubernetesPodOperator.__name__}"].kind is Kind.POD
    for name in OWNED_METHODS | GONE.keys():
        assert hasattr(KubernetesPodOperator, name), name


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_an_argument_without_effect_is_taken(name):
    if name in arguments_of(KubernetesPodOperator):
        operator = RemotePodOperator
    elif name in arguments_of(KubernetesJobOperator):
        operator = RemoteJobOperator
    else:
        pytest.skip(f"the installed provider of Kubernetes has no {name}")
    assert operator(task_id="t", image="i", **{name: VALUES.get(name, "x")}).task_id == "t"


def test_what_the_operator_says_has_no_effect_is_in_the_list():
    ignored = {name for name, parameter in PARAMETERS.items() if parameter.verdict is Verdict.NO_EFFECT}
    assert WITHOUT_EFFECT.keys() >= ignored


def test_what_has_no_effect_is_an_argument_of_upstreams():
    missing = WITHOUT_EFFECT.keys() - arguments_of(KubernetesPodOperator) - arguments_of(KubernetesJobOperator)
    newer = {"trigger_kwargs", "xcom_sidecar_container_security_context", "discover_pods_retry_number"}
    assert missing <= newer  # older providers have none of them


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in REFUSED.items() for name in names], ids=str)
def test_a_refused_argument_is_refused(kind, name):
    make = {Kind.POD: RemotePodOperator, Kind.EKS: EksPodOperator}[kind]
    more = {"cluster_name": "c"} if kind is Kind.EKS else {}
    with pytest.raises(Exception, match=name):
        make(task_id="t", image="i", **more, **{name: True})


def test_a_callback_gets_what_the_list_says_of_its_client():
    client = RemotePodOperator(task_id="t", image="i").client
    assert {"read_namespaced_pod", "delete_namespaced_pod"} <= set(dir(client))
    with pytest.raises(Exception, match="list_node"):
        client.list_node()


def test_what_stops_the_rewriting_of_batch_is_what_the_operator_refuses():
    assert BATCH_REFUSED.keys() == refused_by_batch.keys()
    module, _, name = f"{NEW_MODULE}.BatchOperator".rpartition(".")
    assert getattr(importlib.import_module(module), name).__name__ == "BatchOperator"
