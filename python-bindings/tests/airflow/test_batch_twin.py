"""The operator of Batch beside the Amazon provider's: what they have in common, by a book of it and by the real one."""

from __future__ import annotations

import importlib.util
import inspect
from datetime import timedelta
from types import SimpleNamespace

import pytest
from batches import LINKS, NAMES

from podbroker.airflow import BatchOperator, links
from podbroker.airflow._compat import BaseOperator
from podbroker.airflow.batch_parameters import BATCH_PARAMETERS, BATCH_REFUSED, BATCH_TEMPLATE_FIELDS
from podbroker.airflow.get_provider_info import get_provider_info
from podbroker.airflow.parameters import Verdict

REQUIRED = inspect.Parameter.empty
BOOK = {
    "job_name": REQUIRED,
    "job_definition": REQUIRED,
    "job_queue": REQUIRED,
    "container_overrides": None,
    "array_properties": None,
    "ecs_properties_override": None,
    "eks_properties_override": None,
    "node_overrides": None,
    "share_identifier": None,
    "scheduling_priority_override": None,
    "parameters": None,
    "retry_strategy": None,
    "job_id": None,
    "waiters": None,
    "max_retries": 4200,
    "status_retries": None,
    "tags": None,
    "wait_for_completion": True,
    "deferrable": False,
    "poll_interval": 30,
    "awslogs_enabled": False,
    "awslogs_fetch_interval": timedelta(seconds=30),
    "submit_job_timeout": None,
    "aws_conn_id": "aws_default",
    "region_name": None,
    "verify": None,
    "botocore_config": None,
}
"""The arguments of the Amazon provider's operator 9.39.0 and their defaults. Of its base class also ``region``, with
which nothing is done there, and which is refused here."""

RENDERERS = {
    "container_overrides": "json",
    "parameters": "json",
    "ecs_properties_override": "json",
    "eks_properties_override": "json",
    "node_overrides": "json",
    "retry_strategy": "json",
}
CONSOLE = "https://console.aws.amazon.com"
BATCH = "arn:aws:batch:us-east-1:111122223333"
ADDRESSES = {
    "BatchJobDetailsLink": (
        "Batch Job Details",
        LINKS["batch_job_details"],
        f"{CONSOLE}/batch/home?region=us-east-1#jobs/detail/{LINKS['batch_job_details']['job_id']}",
    ),
    "BatchJobDefinitionLink": (
        "Batch Job Definition",
        LINKS["batch_job_definition"],
        f"{CONSOLE}/batch/home?region=us-east-1#job-definition/detail/{BATCH}:job-definition/reports:3",
    ),
    "BatchJobQueueLink": (
        "Batch Job Queue",
        LINKS["batch_job_queue"],
        f"{CONSOLE}/batch/home?region=us-east-1#queues/detail/{BATCH}:job-queue/nightly",
    ),
    "CloudWatchEventsLink": (
        "CloudWatch Events",
        {
            **LINKS["batch_job_queue"],
            "awslogs_region": "us-east-1",
            "awslogs_group": "/aws/batch",
            "awslogs_stream_name": "a/b",
        },
        f"{CONSOLE}/cloudwatch/home?region=us-east-1#logsV2:log-groups/log-group/%2Faws%2Fbatch/log-events/a%2Fb",
    ),
}


def ours():
    return inspect.signature(inspect.unwrap(BatchOperator.__init__)).parameters


def test_the_constructor_is_amazons_and_ours_beside_it():
    assert {name: ours()[name].default for name in BOOK} == BOOK
    assert all(parameter.kind is not inspect.Parameter.POSITIONAL_ONLY for parameter in ours().values())
    assert not {name for name, each in ours().items() if each.default is REQUIRED} - {
        *(name for name in BOOK if BOOK[name] is REQUIRED),
        "self",
        "kwargs",
    }


def test_the_template_fields_are_amazons_and_ours_behind_them():
    fields = BatchOperator.template_fields
    assert fields[: len(BATCH_TEMPLATE_FIELDS)] == BATCH_TEMPLATE_FIELDS
    assert tuple(sorted(BATCH_TEMPLATE_FIELDS)) == BATCH_TEMPLATE_FIELDS
    assert len(set(fields)) == len(fields)
    operator = BatchOperator(task_id="task", **NAMES)
    assert all(hasattr(operator, name) for name in fields)
    assert {"target", "podbroker_conn_id", "deployment_id"} <= set(fields)
    assert RENDERERS.items() <= BatchOperator.template_fields_renderers.items()
    assert BatchOperator.ui_color == "#c3dae0"


def test_the_default_of_deferrable_is_airflows():
    assert BatchOperator(task_id="task", **NAMES).deferrable is False


def test_every_argument_of_amazons_is_in_the_table():
    assert set(BATCH_PARAMETERS) == {*BOOK, "region"}
    refused = {name for name, each in BATCH_PARAMETERS.items() if each.verdict is Verdict.REFUSED}
    assert refused == set(BATCH_REFUSED)
    for name, parameter in BATCH_PARAMETERS.items():
        assert parameter.how or parameter.verdict is Verdict.SAME, name


def test_it_is_no_pod_operator():
    operator = BatchOperator(task_id="task", **NAMES)
    assert isinstance(operator, BaseOperator)
    assert not hasattr(operator, "image")
    assert not hasattr(operator, "build_pod_request_obj")


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_link_has_the_name_and_the_address_of_amazons(kind, monkeypatch):
    name, kept, address = ADDRESSES[kind]
    link = next(each for each in BatchOperator.operator_extra_links if type(each).__name__ == kind)
    asked = []
    monkeypatch.setattr(links, "read_xcom", lambda ti_key, key: asked.append((ti_key, key)) or kept)
    assert link.name == name
    assert link.get_link(None, ti_key="ti") == address
    assert asked == [("ti", link.key)]


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("kept", [None, {}, {"region_name": "us-east-1"}, RuntimeError("the database is away")])
def test_a_link_of_which_nothing_is_known_is_empty(kind, kept, monkeypatch):
    def read(*_):
        if isinstance(kept, Exception):
            raise kept
        return kept

    monkeypatch.setattr(links, "read_xcom", read)
    assert getattr(links, kind)().get_link(None, ti_key="ti") == ""


def test_airflow_is_told_of_each_link():
    paths = {f"{type(link).__module__}.{type(link).__name__}" for link in BatchOperator.operator_extra_links}
    assert set(get_provider_info()["extra-links"]) == paths


# The real one, where it is installed.


@pytest.fixture(scope="module")
def amazon():
    if importlib.util.find_spec("airflow.providers.amazon") is None:
        pytest.skip("elsewhere: the Amazon provider is not installed")
    from airflow.providers.amazon.aws.operators import batch as module

    return module.BatchOperator


def test_the_book_is_what_the_installed_provider_has(amazon):
    found = {}
    for kind in amazon.__mro__:
        if kind is BaseOperator or not kind.__module__.startswith("airflow.providers.amazon"):
            continue
        if "__init__" in vars(kind):
            found.update(inspect.signature(inspect.unwrap(kind.__init__)).parameters)
    named = {name: each.default for name, each in found.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}
    named.pop("region", None)
    assert named == BOOK
    assert tuple(amazon.template_fields) == BATCH_TEMPLATE_FIELDS
    assert amazon.template_fields_renderers == RENDERERS
    assert amazon.ui_color == BatchOperator.ui_color


def test_the_attributes_of_both_are_the_same(amazon):
    theirs, own = amazon(task_id="task", **NAMES), BatchOperator(task_id="task", **NAMES)
    assert {name: getattr(own, name) for name in BOOK} == {name: getattr(theirs, name) for name in BOOK}


def test_the_links_of_both_give_the_same(amazon):
    theirs = {link.name: link for link in amazon.operator_extra_links}
    own = {link.name: link for link in BatchOperator.operator_extra_links}
    assert [*own] == [*theirs]
    for name, kept, address in ADDRESSES.values():
        assert own[name].key == theirs[name].key
        assert own[name].xcom_key == theirs[name].xcom_key
        assert theirs[name].format_link(**kept) == address


def test_the_xcoms_of_the_links_are_the_same(amazon):
    pushed = {}
    context = {"ti": SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))}
    operator = SimpleNamespace(do_xcom_push=True)
    for link in amazon.operator_extra_links:
        if (kept := LINKS.get(link.key)) is not None:
            more = {name: value for name, value in kept.items() if name not in {"region_name", "aws_domain"}}
            link.persist(context=context, operator=operator, region_name="us-east-1", aws_partition="aws", **more)
    assert pushed == LINKS
