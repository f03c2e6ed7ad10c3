"""Asset events from the value of a pod: what is emitted, and what a pod may not say."""

from __future__ import annotations

import json
import re

import pytest
import scripted as s
from repository import page
from versions import OutletEventAccessors, TaskDeferred, on_airflow_3

from podbroker import ResultSource
from podbroker.airflow import assets
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AIRFLOW_V_3_0_PLUS, AirflowSkipException
from podbroker.airflow._compat_assets import Asset, AssetAlias
from podbroker.airflow.assets import AssetEventsError, plan

TABLE = Asset("s3://bucket/table")
OTHER = Asset("s3://bucket/other")
ALIAS = AssetAlias("found")
OUTLETS = [TABLE, OTHER, ALIAS]


@pytest.fixture
def context(context):
    context["outlet_events"] = OutletEventAccessors()
    return context


def handing_back(value):
    return [s.state(s.S.RUNNING), s.result(json.dumps(value).encode()), s.end()]


def extras(context):
    events = context["outlet_events"]
    return {asset.uri: dict(events[asset].extra) for asset in (TABLE, OTHER)}


def of_alias(context):
    """The events of the alias, as (uri, extra)."""
    accessor = context["outlet_events"][ALIAS]
    if AIRFLOW_V_3_0_PLUS:
        return [(event.dest_asset_key.uri, event.extra) for event in accessor.asset_alias_events]
    return [(event["dest_dataset_uri"], event["extra"]) for event in accessor.dataset_alias_events]


SAID = [
    {"uri": "s3://bucket/table", "extra": {"rows": 3, "columns": "a, b"}},
    {"uri": "s3://elsewhere/part-1", "alias": "found", "extra": {"rows": 1}},
    {"uri": "s3://elsewhere/part-2", "alias": "found"},
]


def test_the_events_are_emitted_and_the_rest_is_the_value(make, client, context, log):
    client.script = handing_back({"rows": 3, "asset_events": SAID})
    operator = make(do_xcom_push=True, assets_from_result=True, outlets=OUTLETS)
    assert operator.execute(context) == {"rows": 3}
    assert extras(context) == {"s3://bucket/table": {"rows": 3, "columns": "a, b"}, "s3://bucket/other": {}}
    assert of_alias(context) == [("s3://elsewhere/part-1", {"rows": 1}), ("s3://elsewhere/part-2", {})]
    assert "Asset events of the pod's result: 3" in log.lines


def test_they_are_emitted_after_a_deferral_too(make, client, context, triggerer):
    made = {"do_xcom_push": True, "assets_from_result": True, "outlets": OUTLETS, "deferrable": True}
    with pytest.raises(TaskDeferred) as caught:
        make(**made).execute(context)
    client.script = handing_back({"asset_events": SAID})
    event = triggerer.run(caught.value.trigger)
    assert "elsewhere" not in json.dumps(event)
    client.script = handing_back({"asset_events": SAID})
    kwargs = json.loads(json.dumps(caught.value.kwargs))
    assert make(**made).resume_execution("trigger_reentry", {**kwargs, "event": event}, context) is None
    assert extras(context)["s3://bucket/table"]["rows"] == 3
    assert len(of_alias(context)) == 2


def test_no_value_need_be_pushed_for_it(make, client, context):
    client.script = handing_back({"rows": 3, "asset_events": SAID})
    assert make(assets_from_result=True, outlets=OUTLETS).execute(context) is None
    assert client.submits[0]["policies"].result is ResultSource.SIDECAR
    assert extras(context)["s3://bucket/table"]["rows"] == 3


def test_nobody_who_has_not_asked_for_it_gets_it(make, client, context):
    client.script = handing_back({"asset_events": SAID})
    assert make(do_xcom_push=True, outlets=OUTLETS).execute(context) == {"asset_events": SAID}
    assert extras(context)["s3://bucket/table"] == {}


@pytest.mark.parametrize("value", [7, [1], "text", None, {"rows": 3}])
def test_a_value_that_says_nothing_of_assets_stays_what_it_is(make, client, context, value):
    client.script = handing_back(value)
    assert make(do_xcom_push=True, assets_from_result=True, outlets=OUTLETS).execute(context) == value
    assert len(context["outlet_events"]) == 0


def test_the_extra_that_a_callback_has_set_stays(make, client, context):
    context["outlet_events"][TABLE].extra["by"] = "a callback"
    client.script = handing_back({"asset_events": [{"uri": TABLE.uri, "extra": {"rows": 1}}]})
    make(assets_from_result=True, outlets=OUTLETS).execute(context)
    assert extras(context)[TABLE.uri] == {"by": "a callback", "rows": 1}


def test_a_pod_that_fails_emits_nothing(make, client, context):
    client.script = [s.state(s.S.RUNNING), s.result(json.dumps({"asset_events": SAID}).encode()), s.end(s.failed())]
    with pytest.raises(ex.RemotePodFailed):
        make(assets_from_result=True, outlets=OUTLETS).execute(context)
    assert len(context["outlet_events"]) == 0


def test_a_task_that_is_skipped_emits_nothing(make, client, context):
    client.script = handing_back({"asset_events": SAID})
    with pytest.raises(AirflowSkipException):
        make(assets_from_result=True, outlets=OUTLETS, skip_on_exit_code=0).execute(context)
    assert len(context["outlet_events"]) == 0


def test_one_wrong_item_fails_the_task_with_its_place_and_nothing_of_the_rest_is_emitted(make, client, context):
    client.script = handing_back({"asset_events": [SAID[0], {"uri": "s3://not/mine"}]})
    with pytest.raises(ex.RemotePodResultError, match=r"`asset_events`\[1\]: .*'s3://not/mine' is not among") as caught:
        make(assets_from_result=True, outlets=OUTLETS).execute(context)
    assert len(context["outlet_events"]) == 0
    assert caught.value.execution_name
    assert client.did("release"), "the pod's outcome was taken over all the same"


def test_a_value_that_is_nested_without_end_is_an_error_of_the_value(make, client, context):
    client.script = [s.state(s.S.RUNNING), s.result(b"[" * 200_000), s.end()]
    with pytest.raises(ex.RemotePodResultError, match="is not JSON"):
        make(assets_from_result=True, outlets=OUTLETS).execute(context)


def test_a_uri_is_compared_as_airflow_writes_it():
    (event,) = plan([{"uri": "S3://bucket/table/"}], OUTLETS)
    assert event.outlet is TABLE


@on_airflow_3
def test_an_asset_may_be_named_by_its_name_or_by_both():
    both = Asset(name="table", uri="s3://bucket/named")
    for item in ({"name": "table"}, {"uri": both.uri}, {"name": "table", "uri": both.uri}):
        (event,) = plan([item], [both])
        assert event.outlet is both
    with pytest.raises(AssetEventsError, match="not among"):
        plan([{"name": "table", "uri": "s3://bucket/table"}], [both])
    with pytest.raises(AssetEventsError, match="say both"):
        plan([{"name": "table"}], [both, Asset(name="table", uri="s3://bucket/again")])
    (event,) = plan([{"name": "new", "uri": "s3://bucket/new", "alias": "found"}], OUTLETS)
    assert (event.asset.name, event.asset.uri) == ("new", "s3://bucket/new")


@on_airflow_3
def test_a_reference_counts_as_what_it_refers_by():
    by_name, by_uri = Asset.ref(name="table"), Asset.ref(uri="s3://bucket/table")
    assert [event.outlet for event in plan([{"name": "table"}, {"uri": by_uri.uri}], [by_name, by_uri])] == [
        by_name,
        by_uri,
    ]
    with pytest.raises(AssetEventsError, match="not among"):
        plan([{"name": "table", "uri": "s3://bucket/table"}], [by_name, by_uri])


def test_airflow_2_says_what_it_cannot_take(monkeypatch):
    monkeypatch.setattr(assets, "AIRFLOW_V_3_0_PLUS", False)
    with pytest.raises(AssetEventsError, match="by its uri only"):
        plan([{"name": "n", "uri": "s3://a/b", "alias": "found"}], OUTLETS)
    with pytest.raises(AssetEventsError, match="Airflow 2 takes no lists"):
        plan([{"uri": "s3://a/b", "alias": "found", "extra": {"parts": [1]}}], OUTLETS)


def deep(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value


MINE = {"uri": TABLE.uri}
HOSTILE = {
    "no list": ({"uri": "x"}, "has to be a list, not an object"),
    "too many": ([MINE] * (assets.MOST_EVENTS + 1), "at most 100"),
    "no object": (["s3://bucket/table"], "has to be an object, not a text"),
    "another member": ([{**MINE, "group": "g"}], "it has 'group'"),
    "nothing named": ([{"extra": {}}], "names no asset"),
    "only an alias": ([{"alias": "found"}], "names no asset"),
    "a name of another kind": ([{"name": 7}], "name has to be a text, not a number"),
    "an empty uri": ([{"uri": " "}], "uri has 1 characters"),
    "a long uri": ([{"uri": "s3://" + "a" * 2000}], "uri has 2005 characters"),
    "a uri over two lines": ([{"uri": "s3://a\nb"}], "cannot be shown"),
    "a terminal's words": ([{"name": "\x1b[2J"}], "cannot be shown"),
    "half a character": ([{"name": "\ud800"}], "cannot be shown"),
    "a password": ([{"uri": "s3://me:sesame@bucket/a", "alias": "found"}], "has a password"),
    "a uri that is none": ([{"uri": "http://[::1"}], "is none"),
    "airflow's own scheme": ([{"uri": "airflow://x", "alias": "found"}], "Airflow does not take the asset"),
    "not declared": ([{"uri": "s3://a/b"}], "is not among the task's outlets"),
    "an alias that is not declared": ([{**MINE, "alias": "other"}], "the alias 'other' is not among"),
    "an alias as an asset": ([{"name": "found"}], "is not among"),
    "twice": ([MINE, MINE], r"\[1\]: the asset stands here twice"),
    "an extra of another kind": ([{**MINE, "extra": [1]}], "extra has to be an object, not a list"),
    "a large extra": ([{**MINE, "extra": {"a": "x" * (16 << 10)}}], "at most 16384"),
    "a deep extra": ([{**MINE, "extra": deep(20)}], "nested deeper than 8"),
    "a deep list": ([{**MINE, "extra": {"a": [[[[[[[[[]]]]]]]]]}}], "nested deeper than 8"),
    "no number": ([{**MINE, "extra": {"a": float("nan")}}], "number that JSON does not have"),
    "infinity": ([{**MINE, "extra": {"a": [float("-inf")]}}], "number that JSON does not have"),
    "a huge number": ([{**MINE, "extra": {"a": 1 << 80}}], "more than 64 bits"),
    "a zero byte": ([{**MINE, "extra": {"a": "b\0"}}], "zero byte"),
    "half a character within": ([{**MINE, "extra": {"\udfff": 1}}], "half a character"),
}


@pytest.mark.parametrize(("said", "why"), HOSTILE.values(), ids=HOSTILE)
def test_what_a_pod_may_not_say(said, why):
    with pytest.raises(AssetEventsError, match=why) as caught:
        plan(said, OUTLETS)
    words = str(caught.value)
    assert "sesame" not in words
    assert len(words) < 500
    assert words.isprintable()


@pytest.mark.parametrize("extra", [{}, None, deep(7), {"a": [1, 2.5, True, None, "ü", -(1 << 63)]}])
def test_what_json_has_may_be_said_of_an_asset(extra):
    (event,) = plan([{**MINE, "extra": extra}], OUTLETS)
    assert event.extra == (extra or {})


def test_without_outlets_nothing_can_be_emitted(make, client, context):
    client.script = handing_back({"asset_events": [MINE]})
    with pytest.raises(ex.RemotePodResultError, match="is not among the task's outlets"):
        make(assets_from_result=True).execute(context)


def test_the_form_of_the_page_is_one():
    (form,) = re.findall(r"^```json\n(.*?)^```", page("airflow.md"), re.DOTALL | re.MULTILINE)
    value, said = assets.take(json.loads(form))
    assert value == {"rows": 3}
    table, part = plan(said, [TABLE, AssetAlias("parts")])
    assert (table.outlet, table.extra) == (TABLE, {"rows": 3})
    assert (part.outlet.name, part.asset.uri, part.extra) == ("parts", "s3://bucket/parts/1", {})


def test_the_limits_are_those_of_the_page():
    text = page("airflow.md")
    assert f"Up to {assets.MOST_EVENTS} items" in text
    assert f"up to {assets.MOST_EXTRA_BYTES >> 10} KiB, nested up to {assets.MOST_LEVELS} levels" in text
