"""What becomes of the pods of earlier tries of the same task instance."""

from __future__ import annotations

from datetime import timedelta

import pytest
import scripted as s

from podbroker import FailureClass, Group, GroupAction
from podbroker.airflow import ending
from podbroker.airflow import exceptions as ex
from podbroker.airflow.earlier import plan
from podbroker.airflow.identity import group_of
from podbroker.exceptions import RefusedError, UnavailableError

LATER = s.NOW + timedelta(minutes=5)
CANCELLED = s.failed(FailureClass.CANCELLED_BY_CALLER, exit_code=None)


def decide(*executions, **kwargs):
    return plan(executions, **{"own_id": "own", "reattach": True, "not_before": s.NOW, "max_tries": 2} | kwargs)


def old(state=s.S.RUNNING, *, id="old", **kwargs):  # noqa: A002
    return s.execution(state, id=id, **{"labels": {"max_tries": "2"}} | kwargs)


def test_an_active_one_is_adopted():
    assert decide(old()).adopt == old()
    assert decide(old()).end == ()


def test_the_newest_of_two_active_ones_is_adopted_and_the_other_is_ended():
    newer = old(id="newer", create_time=LATER)
    decided = decide(old(), newer)
    assert decided.adopt == newer
    assert decided.end == (old(),)


def test_without_reattaching_an_active_one_is_ended():
    assert decide(old(), reattach=False) == decide(old(), reattach=False)
    assert decide(old(), reattach=False).adopt is None
    assert decide(old(), reattach=False).end == (old(),)


def test_one_that_succeeded_while_nobody_looked_is_adopted():
    done = old(s.S.SUCCEEDED, outcome=s.succeeded())
    assert decide(done).adopt == done


@pytest.mark.parametrize(
    "execution",
    [
        old(s.S.SUCCEEDED, outcome=s.succeeded(), release_time=s.NOW),
        old(s.S.FAILED, outcome=s.failed()),
        old(s.S.CANCELLED, outcome=CANCELLED),
    ],
    ids=["acknowledged", "failed", "cancelled"],
)
def test_one_that_is_over_and_done_with_is_left_alone(execution):
    assert decide(execution).adopt is None
    assert decide(execution).end == ()


def test_one_that_is_being_cancelled_is_waited_for():
    dying = old(cancel=s.cancelled_intent())
    assert decide(dying).adopt is None
    assert decide(dying).end == (dying,)


def test_one_of_a_dag_run_that_was_made_anew_is_ended():
    assert decide(old(), not_before=LATER).end == (old(),)


def test_after_a_users_clear_the_old_one_is_ended():
    cleared = old(labels={"max_tries": "1"})
    assert decide(cleared).adopt is None
    assert decide(cleared).end == (cleared,)


def test_where_airflow_does_not_say_max_tries_it_does_not_matter():
    assert decide(old(labels={}), max_tries=None).adopt is not None
    assert decide(old(labels={})).adopt is not None


def test_an_execution_of_this_very_try_settles_everything():
    assert decide(old(), s.execution(id="own")) == decide(s.execution(id="own"))
    assert decide(old(), s.execution(id="own")).end == ()


def test_the_first_try_asks_for_no_earlier_ones(make, client, context):
    client.script = [s.end()]
    make().execute(context)
    assert not client.did("list")


def test_a_retry_adopts_the_pod_of_the_try_before(make, client, context, log):
    context["ti"].try_number = 2
    client.known = {old().name: old(labels={"max_tries": "0"})}
    client.script = [s.lines("from the beginning"), s.end()]
    make().execute(context)
    ((target, labels, _, _),) = client.did("list")
    assert target == "somewhere"
    assert labels == {
        "deployment": "airflow",
        "dag_id": "dag",
        "run_id": "manual__2026-11-21",
        "task_id": "task",
        "map_index": "none",
    }
    assert not client.submits
    assert client.watched[0]["name"] == old().name
    assert client.did("release") == [(old().name, "")]
    assert "Adopting execution" in log.text


def test_with_reattach_switched_off_a_retry_ends_the_old_pod_before_it_starts_its_own(make, client, context):
    context["ti"].try_number = 2
    client.known = {old().name: old()}
    client.scripts[old().name] = [s.end(CANCELLED, id="old")]
    client.script = [s.end()]
    make(durable=False).execute(context)
    verbs = [verb for verb, _ in client.calls]
    assert verbs == ["list", "cancel", "watch", "release", "submit", "watch", "release"]
    assert client.watched[0]["logs"] is False


def test_an_old_pod_that_cannot_be_cancelled_starts_no_second_one(make, client, context, monkeypatch):
    monkeypatch.setattr("podbroker.airflow.session.CANCEL_SECONDS", 0.0)
    context["ti"].try_number = 2
    client.known = {old().name: old()}
    client.cancel_error = UnavailableError("away")
    with pytest.raises(ex.RemotePodBrokerUnavailable):
        make(durable=False).execute(context)
    assert not client.submits


def test_an_old_pod_that_does_not_end_starts_no_second_one(make, client, context, monkeypatch):
    monkeypatch.setattr(ending, "EARLIER_SECONDS", 0.01)
    context["ti"].try_number = 2
    client.known = {old().name: old(cancel=s.cancelled_intent())}
    client.scripts[old().name] = [s.state(s.S.RUNNING, id="old")]
    with pytest.raises(ex.RemotePodStartTimeout):
        make().execute(context)
    assert not client.did("cancel")
    assert not client.submits


@pytest.fixture
def grouping(client):
    client.features = ("group",)
    return client


def test_the_tries_of_a_task_instance_are_a_group(make, grouping, context):
    grouping.script = [s.end()]
    make().execute(context)
    (submit,) = grouping.submits
    assert submit["group"] == Group(
        group_id="dag:task:airflow:manual__2026-11-21:none", not_before=context["dag_run"].start_date
    )
    assert submit["labels"]["in_group"] == "true"


def test_a_pod_that_was_made_in_the_second_in_which_the_dag_run_started_is_adopted(make, client, context, log):
    """Kubernetes tells whole seconds only."""
    context["ti"].try_number = 2
    context["dag_run"].start_date = s.NOW + timedelta(milliseconds=900)
    client.known = {old().name: old(labels={"max_tries": "0"})}
    client.script = [s.end()]
    make().execute(context)
    assert "Adopting execution" in log.text
    assert not client.did("cancel")
    assert group_of(context, deployment_id="airflow", action=GroupAction.ATTACH).not_before == s.NOW


def test_a_retry_attaches_to_the_pod_of_the_try_before_and_takes_over_its_claim(make, grouping, context, log):
    context["ti"].try_number = 2
    grouping.known = {old().name: old(labels={"max_tries": "0", "in_group": "true"})}
    grouping.attaches_to = grouping.known[old().name]
    grouping.script = [s.end()]
    make().execute(context)
    (submit,) = grouping.submits
    assert submit["group"].action is GroupAction.ATTACH
    assert grouping.watched[0]["name"] == old().name
    assert grouping.did("release") == [(old().name, "later claim")]
    assert "Adopting execution" in log.text


def test_a_pod_that_was_submitted_to_no_group_is_adopted_without_one(make, grouping, context):
    context["ti"].try_number = 2
    grouping.known = {old().name: old(labels={"max_tries": "0"})}
    grouping.script = [s.end()]
    make().execute(context)
    assert not grouping.submits
    assert grouping.watched[0]["name"] == old().name


@pytest.mark.parametrize(("durable", "action"), [(True, GroupAction.ATTACH), (False, GroupAction.CANCEL_FIRST)])
def test_what_is_not_to_be_adopted_is_not_attached_to_either(make, grouping, context, durable, action):
    context["ti"].try_number = 2
    over = old(s.S.FAILED, outcome=s.failed(), labels={"max_tries": "0", "in_group": "true"})
    grouping.known = {over.name: over}
    grouping.script = [s.end()]
    make(durable=durable).execute(context)
    assert grouping.submits[-1]["group"].action is action


def test_after_a_clear_a_success_is_not_attached_to(make, grouping, context):
    context["ti"].try_number, context["ti"].max_tries = 2, 1
    done = old(s.S.SUCCEEDED, outcome=s.succeeded(), labels={"max_tries": "0", "in_group": "true"})
    grouping.known = {done.name: done}
    grouping.script = [s.end()]
    make().execute(context)
    assert grouping.submits[-1]["group"].action is GroupAction.CANCEL_FIRST


def test_a_late_release_of_a_try_that_was_taken_over_is_no_trouble(make, grouping, context, log):
    grouping.release_error = RefusedError("a newer claim", reason="CLAIM_SUPERSEDED")
    grouping.script = [s.end()]
    make().execute(context)
    assert "belongs to a later try" in log.text
