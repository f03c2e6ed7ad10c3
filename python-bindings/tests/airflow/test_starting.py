"""Which tasks may start in the triggerer, and what is stored of them."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from kubernetes.client import models as k8s
from repository import page
from starts import row_of, scheduled, stored
from triggers import Listener, hear, shout
from versions import DAG, DagBag

from podbroker import InfraRetry, ResultSource
from podbroker.airflow import EksPodOperator, RemotePodOperator, starting
from podbroker.airflow._compat import AIRFLOW_V_3_3_PLUS

from_airflow_3_3 = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow can do it from 3.3 on")


class Another(RemotePodOperator):
    """Somebody's own."""


def dag_with(kind=RemotePodOperator, *, dag=None, **arguments):
    with DAG(dag_id="dag", schedule=None, **(dag or {})) as made:
        kind(**{"task_id": "task", "start_from_trigger": True, "target": "somewhere", "image": "busybox:1"} | arguments)
    return made


def why_not(dag):
    operator = dag.get_task("task")
    assert not operator.start_from_trigger
    assert operator.start_trigger_args is None
    return operator.start.why_not


def test_below_airflow_3_3_a_worker_starts_the_pod(monkeypatch):
    monkeypatch.setattr(starting, "AIRFLOW_V_3_3_PLUS", False)
    assert why_not(dag_with()) == "Airflow can do it from 3.3 on"


@from_airflow_3_3
def test_a_task_that_asks_for_it_starts_in_the_triggerer():
    dag = dag_with(cmds=["sh", "-c"], arguments=["echo {{ ds }}"], labels={"team": "a"}, ttl=timedelta(hours=1))
    task = scheduled(dag)
    assert task.start_from_trigger is True
    assert task.start_trigger_args.next_method == "trigger_reentry"
    given = {
        "target": "somewhere",
        "image": "busybox:1",
        "cmds": ["sh", "-c"],
        "arguments": ["echo {{ ds }}"],
        "labels": {"team": "a"},
        "ttl": 3600.0,
    }
    row = row_of(dag)
    assert given.items() <= row["given"].items()
    assert row["operator"] == "podbroker.airflow.operator.RemotePodOperator"
    assert starting.revived(row["given"])["ttl"] == timedelta(hours=1)
    assert stored(dag) == stored(dag_with(**{**given, "ttl": timedelta(hours=1)})), "each parse stores the same"


@from_airflow_3_3
def test_where_the_value_comes_from_is_stored():
    given = row_of(dag_with(do_xcom_push=True, result_source=ResultSource.TERMINATION_MESSAGE))["given"]
    assert given["result_source"] == "TERMINATION_MESSAGE"
    made = RemotePodOperator(task_id="task", **starting.revived(given))
    assert made.result_source is ResultSource.TERMINATION_MESSAGE


@from_airflow_3_3
def test_a_task_that_does_not_ask_for_it_starts_in_a_worker():
    task = scheduled(dag_with(start_from_trigger=False))
    assert task.start_from_trigger is False
    assert task.start_trigger_args is None


@from_airflow_3_3
def test_a_mapped_task_starts_in_workers():
    with DAG(dag_id="dag", schedule=None) as dag:
        RemotePodOperator.partial(task_id="task", image="busybox:1", start_from_trigger=True).expand(
            arguments=[["a"], ["b"]]
        )
    assert scheduled(dag).start_trigger_args is None


@from_airflow_3_3
def test_what_is_set_later_counts():
    dag = dag_with()
    dag.get_task("task").image = "busybox:2"
    assert row_of(dag)["given"]["image"] == "busybox:2"


@from_airflow_3_3
def test_default_args_count():
    dag = dag_with(dag={"default_args": {"service_account_name": "runner"}})
    assert row_of(dag)["given"]["service_account_name"] == "runner"


@from_airflow_3_3
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"callbacks": [Listener]}, "callbacks runs in a worker"),
        ({"progress_callback": hear}, "progress_callback runs in a worker"),
        ({"log_formatter": shout}, "log_formatter runs in a worker"),
        ({"pre_execute": print}, "pre_execute runs in a worker"),
        ({"on_execute_callback": print}, "on_execute_callback runs in a worker"),
        ({"full_pod_spec": k8s.V1Pod()}, "full_pod_spec is no plain JSON"),
        ({"infra_retry": InfraRetry()}, "infra_retry is no plain JSON"),
        ({"pod_template_file": "pod.yaml"}, "pod_template_file is a file of the worker"),
        ({"env_vars": {"MODE": "fast"}}, "env_vars holds values"),
        ({"env_vars": {"MODE": "{{ ds }} and more"}}, "env_vars holds values"),
        ({"env_vars": {"A": "{{ ds }}", "B": "b"}}, "env_vars holds values"),
        (
            {"pod_template_dict": {"spec": {"containers": [{"name": "base", "env": [{"name": "A", "value": "b"}]}]}}},
            "pod_template_dict holds values of variables",
        ),
        ({"annotations": {"password": "hunter22"}}, "annotations may hold a secret"),
        (
            {"pod_template_dict": {"spec": {"a": {"b": {"c": {"d": {"e": {"token": "hunter22"}}}}}}}},
            "pod_template_dict may hold a secret",
        ),
        ({"arguments": ["{{ prev_start_date_success }}"]}, "its templates use prev_start_date_success"),
        ({"arguments": ["{{ ti.start_date }}"]}, "its templates use ti.start_date"),
        ({"arguments": ["{{ ti }}"]}, "its templates use ti"),
        ({"arguments": ["{{ task.owner }}"]}, "its templates use task"),
        ({"arguments": ["{{ ds "]}, "its templates use what cannot be read"),
        ({"execution_timeout": timedelta(hours=1)}, "execution_timeout is not longer than"),
        ({"execution_timeout": timedelta(seconds=839), "active_deadline_seconds": 600}, "execution_timeout is not"),
        ({"kind": Another}, "Another is a class of its own"),
        ({"dag": {"user_defined_macros": {"ds": 1}}, "arguments": ["{{ ds }}"]}, "the macros and filters of the DAG"),
        ({"dag": {"render_template_as_native_obj": True}, "arguments": ["{{ ds }}"]}, "are rendered as objects"),
    ],
)
def test_what_a_triggerer_cannot_do_starts_in_a_worker_and_the_reason_is_known(arguments, why):
    assert why in why_not(dag_with(**arguments))


@from_airflow_3_3
def test_what_airflow_knows_to_be_a_secret_is_not_stored():
    from airflow.sdk.log import mask_secret

    mask_secret("a-known-secret")
    dag = dag_with(arguments=["--key=a-known-secret"])
    assert why_not(dag) == "arguments may hold a secret"
    assert "start_trigger_args" not in json.dumps(stored(dag))


@from_airflow_3_3
@pytest.mark.parametrize(
    "arguments",
    [
        {"env_vars": {"DAY": "{{ ds }}", "PASSWORD": "{{ var.value.password }}", "EMPTY": ""}},
        {"arguments": ["{{ ti.try_number }} {{ ti.xcom_pull('a') }} {{ macros.ds_add(ds, 1) }} {{ dag_run.conf }}"]},
        {"execution_timeout": timedelta(seconds=841), "active_deadline_seconds": 600, "startup_timeout_seconds": 120},
        {"pod_template_dict": {"spec": {"containers": [{"name": "base"}]}}},
        {"image_pull_secrets": []},
    ],
)
def test_what_a_triggerer_can_do_it_does(arguments):
    assert dag_with(**arguments).get_task("task").start.why_not == ""


@from_airflow_3_3
def test_a_pod_mutation_hook_runs_in_a_worker(monkeypatch):
    from airflow import settings

    def pod_mutation_hook(pod):
        """Somebody's own."""

    monkeypatch.setattr(settings, "pod_mutation_hook", pod_mutation_hook)
    assert why_not(dag_with()) == "pod_mutation_hook runs in a worker"


@from_airflow_3_3
def test_a_pod_mutation_hook_of_a_plugin_counts_as_well():
    from airflow import policies, settings

    class Policy:
        @staticmethod
        @policies.hookimpl
        def pod_mutation_hook(pod):
            """Somebody's own."""

    plugin = Policy()
    settings.get_policy_plugin_manager().register(plugin)
    try:
        assert why_not(dag_with()) == "pod_mutation_hook runs in a worker"
    finally:
        settings.get_policy_plugin_manager().unregister(plugin)


@from_airflow_3_3
def test_an_eks_pod_starts_in_the_triggerer_too():
    arguments = {"cluster_name": "c", "region": "us-east-1", "pod_name": "p", "aws_conn_id": None}
    with DAG(dag_id="dag", schedule=None) as dag:
        EksPodOperator(task_id="task", image="busybox:1", start_from_trigger=True, **arguments)
    row = row_of(dag)
    assert row["operator"] == "podbroker.airflow.eks.EksPodOperator"
    made = EksPodOperator(task_id="task", **starting.revived(row["given"]))
    assert {name: getattr(made, name) for name in arguments} == arguments
    assert (made.name, made.namespace) == ("p", "default")


@from_airflow_3_3
@pytest.mark.parametrize(
    "arguments",
    [
        {"assets_from_result": True},
        {"on_success_callback": print},
        {"skip_on_exit_code": 0},
        {"multiple_outputs": True},
    ],
)
def test_what_only_a_worker_can_do_at_the_end_is_left_to_it(arguments):
    assert row_of(dag_with(**arguments))["settled_by_worker"] is True


@from_airflow_3_3
def test_a_task_with_outlets_is_ended_by_a_worker():
    from airflow.sdk import Asset

    assert row_of(dag_with(outlets=[Asset(name="a", uri="s3://bucket/a")]))["settled_by_worker"] is True
    assert row_of(dag_with())["settled_by_worker"] is False


@from_airflow_3_3
def test_the_example_starts_in_the_triggerer(tmp_path):
    text = page("airflow.md")
    (example,) = (one for one in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "load" in one)
    (tmp_path / "dag.py").write_text(example)
    bag = DagBag(dag_folder=str(tmp_path / "dag.py"))
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    assert dag.get_task("load").start.why_not == ""
    assert dag.get_task("load").start_from_trigger
