"""How a task instance is called at the broker."""

from __future__ import annotations

import re
import uuid
from types import SimpleNamespace

import pytest
import scripted as s

from podbroker import TargetPlace
from podbroker.airflow.identity import (
    MAX_ID_LENGTH,
    execution_id,
    execution_labels,
    execution_name,
    group_labels,
    target_selector,
)

# From the contract: SubmitExecutionRequest.execution_id.
ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@=+~-]{0,199}")
# From Kubernetes: a label's value.
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

NASTY = ["a", "a.b.c", "group.task", "_x", "-", "é" * 30, "日本語", "x" * 250, "with space/and:more", "..", "a b" * 100]


def airflow_2(**kwargs):
    context = s.make_context(**kwargs)
    ti = context["ti"]
    context["ti"] = SimpleNamespace(
        dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index, try_number=ti.try_number
    )
    return context


@pytest.mark.parametrize("make", [s.make_context, airflow_2], ids=["airflow 3", "airflow 2"])
@pytest.mark.parametrize("dag", NASTY)
@pytest.mark.parametrize("task", NASTY)
def test_every_id_is_one_that_the_contract_allows(make, dag, task):
    context = make(dag_id=dag, task_id=task, run_id="scheduled__2026-11-21T00:00:00+00:00")
    for deployment in ("airflow", "a deployment with a name that is much too long for its place"):
        made = execution_id(context, deployment_id=deployment)
        assert ALLOWED.fullmatch(made), made
        assert len(made) <= MAX_ID_LENGTH
        labels = execution_labels(context, deployment_id=deployment)
        assert all(LABEL.fullmatch(value) and len(value) <= 63 for value in labels.values()), labels
        assert len(labels) <= 16


def test_the_id_is_readable():
    made = execution_id(s.make_context(dag_id="etl", task_id="group.load"), deployment_id="prod")
    assert made.startswith("etl.group.load.prod.")


def test_the_id_stays_for_a_try_and_is_new_for_the_next():
    ours, again = s.make_context(), s.make_context()
    other = s.make_context(id=uuid.uuid4())
    assert execution_id(ours, deployment_id="x") == execution_id(again, deployment_id="x")
    assert execution_id(ours, deployment_id="x") != execution_id(other, deployment_id="x")
    assert execution_id(ours, deployment_id="x") != execution_id(ours, deployment_id="y")


@pytest.mark.parametrize(
    "change", [{"try_number": 2}, {"map_index": 1}, {"task_id": "b"}, {"task_id": "a/"}, {"task_id": "a" * 60}]
)
def test_on_airflow_2_the_parts_make_it_unique(change):
    def named(**kwargs):
        return execution_id(airflow_2(**{"task_id": "a"} | kwargs), deployment_id="x")

    assert named() != named(**change)
    made_anew = airflow_2(task_id="a")
    made_anew["dag_run"].id = 8
    assert execution_id(made_anew, deployment_id="x") != named()


def test_long_names_that_differ_at_their_end_stay_apart():
    def named(dag):
        return execution_id(airflow_2(dag_id=dag), deployment_id="x")

    assert named("x" * 100 + "1") != named("x" * 100 + "2")


def test_tries_share_their_group_labels():
    first, second = s.make_context(), s.make_context(try_number=2, max_tries=3)
    assert group_labels(first, deployment_id="x") == group_labels(second, deployment_id="x")
    assert execution_labels(second, deployment_id="x")["max_tries"] == "3"
    assert group_labels(s.make_context(map_index=0), deployment_id="x")["map_index"] == "0"


def test_the_address_is_known_where_the_target_has_a_name():
    assert execution_name("there", "id") == "targets/there/executions/id"
    assert execution_name(TargetPlace(cluster="c"), "id") is None


def test_a_target_is_a_name_or_some_of_its_parts():
    assert target_selector("there") == "there"
    assert target_selector("") is None
    assert target_selector(None) is None
    assert target_selector({"cluster": "c", "region": ""}) == TargetPlace(cluster="c")
    for wrong in ({"clusters": "c"}, {}, {"cluster": ""}):
        with pytest.raises(ValueError, match="target"):
            target_selector(wrong)


def test_a_try_that_kept_the_id_of_the_try_before_has_an_execution_of_its_own():
    """Airflow's scheduler lets a task try again under the same id when it fails it in the queue."""
    first, second = (execution_id(s.make_context(try_number=number), deployment_id="airflow") for number in (1, 2))
    assert first != second
    assert second.startswith(first)
