"""The operator of Batch: rewritten only where its jobs certainly run on EKS."""

from __future__ import annotations

import pytest

from podbroker.migrate.analysis import analyse
from podbroker.migrate.finding import Level

BATCH = "airflow.providers.amazon.aws.operators.batch"
IMPORT = f"from {BATCH} import BatchOperator\n"
EKS = "BatchOperator(job_name='n', eks_properties_override={})\n"


def said(report):
    return [
        (place.finding.level, f"{place.before[0]}:{place.before[1]} {place.finding.code}") for place in report.places
    ]


def test_an_import_whose_every_use_is_of_eks_is_rewritten():
    report = analyse((IMPORT + EKS + "x = " + EKS).encode())
    assert report.new.decode() == "from podbroker.airflow import BatchOperator\n" + EKS + "x = " + EKS
    assert said(report) == [(Level.NOTE, "2:1 batch-target"), (Level.NOTE, "3:5 batch-target")]
    assert said(analyse(report.new)) == said(report), "a second run says the same"


def test_other_names_of_the_statement_stay():
    text = f"from {BATCH} import BatchOperator as B, BatchCreateComputeEnvironmentOperator as C\n"
    report = analyse((text + "B(eks_properties_override=x, target='t')\nC()\n").encode())
    first, second, *_ = report.new.decode().splitlines()
    assert first == "from podbroker.airflow import BatchOperator as B"
    assert second == f"from {BATCH} import BatchCreateComputeEnvironmentOperator as C"
    assert said(report) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("BatchOperator(job_name='n')\n", "2:1 not-migrated"),
        ("BatchOperator(container_overrides={'command': []})\n", "2:15 not-migrated"),
        ("", "1:58 not-migrated"),
    ],
)
def test_what_may_well_be_of_ecs_stays_and_is_a_note(text, found):
    report = analyse((IMPORT + text).encode())
    assert not report.is_changed
    assert (Level.NOTE, found) in said(report)
    assert {level for level, _ in said(report)} == {Level.NOTE}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("BatchOperator(job_name='n')\n", "3:1 batch-operator"),
        ("BatchOperator(eks_properties_override={}, verify=False)\n", "3:43 batch-operator"),
        ("BatchOperator(eks_properties_override={}, **more)\n", "3:43 batch-operator"),
        ("f(BatchOperator)\n", "3:3 batch-operator"),
        ("class Mine(BatchOperator): ...\n", "3:12 batch-operator"),
        ("BatchOperator.partial(eks_properties_override={}).expand(parameters=[])\n", "3:1 batch-operator"),
    ],
)
def test_a_file_that_says_eks_and_something_that_stops_it_is_for_a_person(text, found):
    report = analyse((IMPORT + EKS + text).encode())
    assert not report.is_changed
    assert said(report) == [(Level.PERSON, found)]


def test_an_argument_that_is_none_stops_nothing():
    report = analyse((IMPORT + "BatchOperator(eks_properties_override={}, container_overrides=None)\n").encode())
    assert report.is_changed


def test_an_annotation_stops_nothing():
    report = analyse((IMPORT + EKS + "def f(x: BatchOperator): ...\n").encode())
    assert report.is_changed


def test_a_class_that_is_used_through_its_module_stays():
    report = analyse(f"import {BATCH} as b\nb.BatchOperator(eks_properties_override={{}})\n".encode())
    assert not report.is_changed
    assert said(report) == [(Level.NOTE, "2:1 not-migrated")]
