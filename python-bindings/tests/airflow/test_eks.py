"""The operator with the Amazon provider's constructor: how it finds its target, and what it leaves alone."""

from __future__ import annotations

import importlib.util
import inspect
import json

import pytest
import scripted as s
from chains import PLACE, ROLE, target
from versions import DAG, Connection, TaskDeferred

from podbroker import FinishAction, TargetPlace
from podbroker.airflow import EksPodOperator, RemotePodOperator
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException, AirflowNotFoundException, BaseHook
from podbroker.airflow.hook import PodbrokerHook
from podbroker.airflow.trigger import RemotePodTrigger
from podbroker.exceptions import FieldViolation, InvalidRequestError, InvalidSpecError, NotFoundError, UnavailableError

SECRETS = ("AKIAEXAMPLEKEY", "s3cr3t-access-key", "s3cr3t-session-token", "s3cr3t-external-id")


@pytest.fixture
def connections(monkeypatch):
    """The connections that Airflow has, by their ids."""
    known = {
        "podbroker_default": Connection(
            conn_id="podbroker_default", conn_type="podbroker", host="h", extra='{"target": "another"}'
        )
    }

    def get(conn_id):
        if conn_id not in known:
            raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")
        return known[conn_id]

    monkeypatch.setattr(BaseHook, "get_connection", staticmethod(get))
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    return known


@pytest.fixture
def aws(connections):
    """Make an AWS connection, with all the secrets that one can hold."""

    def make(conn_id="aws_default", **extra):
        everything = {
            "role_arn": ROLE,
            "region_name": "us-east-1",
            "aws_session_token": SECRETS[2],
            "assume_role_kwargs": {"ExternalId": SECRETS[3]},
        } | extra
        connections[conn_id] = Connection(
            conn_id=conn_id,
            conn_type="aws",
            login=SECRETS[0],
            password=SECRETS[1],
            extra=json.dumps({key: value for key, value in everything.items() if value is not None}),
        )

    return make


@pytest.fixture
def eks(client, log, connections, monkeypatch):  # noqa: ARG001
    """Make an operator over the scripted client."""
    monkeypatch.setattr(RemotePodOperator, "log", log)
    client.targets = lambda: (target(), target("other", TargetPlace(cluster="other", namespace="n")))

    def build(**kwargs):
        arguments = {
            "task_id": "task",
            "cluster_name": PLACE.cluster,
            "namespace": PLACE.namespace,
            "image": "busybox:1",
        }
        return EksPodOperator(**arguments | kwargs)

    return build


def asked(client, operator, context):
    client.script = [s.end()]
    operator.execute(context)
    return client.submits[-1]["target"]


def test_the_target_is_found_by_the_cluster_and_the_role_of_the_connection(eks, aws, client, context):
    aws()
    assert asked(client, eks(), context) == PLACE
    assert client.submits[0]["pod"]["metadata"]["namespace"] == PLACE.namespace


def test_nothing_else_of_the_connection_is_sent_or_shown(eks, aws, client, context, log):
    aws()
    client.refusals = [NotFoundError("no target matches", reason="NO_SUCH_TARGET")]
    operator = eks()
    with pytest.raises(ex.RemotePodRefused) as caught:
        operator.execute(context)
    said = f"{client.submits} {client.calls} {log.text} {caught.value} {vars(operator)} {vars(operator.hook)}"
    assert ROLE in said
    assert [secret for secret in SECRETS if secret in said] == []


@pytest.mark.skipif(
    importlib.util.find_spec("airflow.providers.amazon") is not None,
    reason="elsewhere: the Amazon provider is installed",
)
def test_the_amazon_provider_is_not_needed():
    assert importlib.util.find_spec("airflow.providers.amazon") is None


@pytest.mark.parametrize("aws_conn_id", ["aws_default", None, ""])
def test_without_the_connection_the_role_is_left_open(eks, client, context, log, aws_conn_id):
    place = asked(client, eks(aws_conn_id=aws_conn_id), context)
    assert place == TargetPlace(cluster=PLACE.cluster, namespace=PLACE.namespace)
    assert ("There is no connection aws_default" in log.text) == bool(aws_conn_id)


def test_a_connection_without_a_role_leaves_it_open_and_says_so(eks, aws, client, context, log):
    aws("aws_eks", role_arn=None)
    place = asked(client, eks(aws_conn_id="aws_eks"), context)
    assert place == TargetPlace(cluster=PLACE.cluster, namespace=PLACE.namespace, region="us-east-1")
    assert "The connection aws_eks names no role_arn" in log.text


@pytest.mark.parametrize("extra", ['{"region_name": "role_arn": "typo"}', "[1]", ""])
def test_an_extra_that_is_no_object_says_nothing(eks, connections, client, context, extra):
    connections["aws_default"] = Connection(conn_id="aws_default", conn_type="aws", extra=extra)
    assert asked(client, eks(), context).role_arn == ""


def test_another_error_of_the_connection_is_not_hidden(eks, connections, context, monkeypatch):
    def get(conn_id):
        if conn_id == "aws_default":
            raise AirflowException("the secrets backend denies it")
        return connections[conn_id]

    monkeypatch.setattr(BaseHook, "get_connection", staticmethod(get))
    with pytest.raises(AirflowException, match="denies"):
        eks().execute(context)


def test_the_region_is_the_arguments_else_the_connections_else_the_environments(eks, aws, client, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "env-1")
    aws()
    assert asked(client, eks(region="arg-1"), s.make_context()).region == "arg-1"
    assert asked(client, eks(), s.make_context(id="2")).region == "us-east-1"
    assert asked(client, eks(aws_conn_id="aws_none"), s.make_context(id="3")).region == "env-1"


def test_the_namespace_is_amazons_default_and_none_leaves_it_to_the_target(client, context, connections):
    operator = EksPodOperator(task_id="task", cluster_name="c", image="busybox:1")
    assert (operator.namespace, operator.in_cluster, operator.aws_conn_id) == ("default", False, "aws_default")
    operator = EksPodOperator(task_id="task", cluster_name="c", image="busybox:1", namespace=None)
    assert connections
    assert asked(client, operator, context) == TargetPlace(cluster="c")
    assert "namespace" not in client.submits[-1]["pod"]["metadata"]


def test_an_empty_cluster_does_not_fall_back_to_another_target(eks, context):
    with pytest.raises(AirflowException, match="cluster_name is empty"):
        eks(cluster_name="").execute(context)


def test_the_constructor_is_amazons():
    # Of version 9.39.0, without aws_profile, which is only in its documentation.
    amazons = {
        "cluster_name": inspect.Parameter.empty,
        "in_cluster": False,
        "namespace": "default",
        "pod_name": None,
        "aws_conn_id": "aws_default",
        "region": None,
        "on_finish_action": None,
    }
    ours = inspect.signature(inspect.unwrap(EksPodOperator.__init__)).parameters
    assert {name: ours[name].default for name in amazons} == amazons


@pytest.mark.parametrize(
    ("given", "finish"),
    [
        (None, FinishAction.DELETE),
        ("delete_succeeded_pod", FinishAction.DELETE_SUCCEEDED),
        ("keep_pod", FinishAction.KEEP),
    ],
)
def test_the_pod_is_deleted_unless_said_otherwise(eks, client, context, given, finish):
    asked(client, eks(on_finish_action=given), context)
    assert client.submits[0]["policies"].finish is finish


def test_the_pods_name_is_the_one_given(eks, client, context):
    asked(client, eks(pod_name="my-pod"), context)
    assert client.submits[0]["pod"]["metadata"]["name"].startswith("my-pod-")


@pytest.mark.parametrize("name", ["config_file", "aws_profile", "target"])
def test_what_makes_no_sense_here_is_refused(eks, name):
    with pytest.raises(AirflowException, match=f"takes no {name}: "):
        eks(**{name: "x"})


def test_it_defers_as_remote_pod_operator_does(eks, context):
    with pytest.raises(TaskDeferred) as caught:
        eks(deferrable=True).execute(context)
    assert isinstance(caught.value.trigger, RemotePodTrigger)


def test_the_template_fields_are_amazons_and_ours_in_one_order():
    fields = EksPodOperator.template_fields
    assert isinstance(fields, tuple)
    assert len(fields) == len(set(fields))
    assert fields[: len(RemotePodOperator.template_fields)] == tuple(RemotePodOperator.template_fields)
    assert fields[len(RemotePodOperator.template_fields) :] == (
        "cluster_name",
        "in_cluster",
        "pod_name",
        "aws_conn_id",
        "region",
    )
    assert "namespace" in fields


def test_the_arguments_are_rendered_before_the_target_is_looked_for(eks, aws, client, context):
    aws("aws_x", region_name=None)
    with DAG("dag", schedule=None):
        operator = eks(
            cluster_name="{{ p.c }}",
            namespace="{{ p.n }}",
            region="{{ p.r }}",
            aws_conn_id="{{ p.a }}",
            pod_name="{{ p.p }}",
        )
    values = {"c": PLACE.cluster, "n": PLACE.namespace, "r": PLACE.region, "a": "aws_x", "p": "rendered"}
    operator.render_template_fields({"p": values})
    assert asked(client, operator, context) == PLACE
    assert client.submits[0]["pod"]["metadata"]["name"].startswith("rendered-")


def test_the_default_target_of_the_connection_does_not_count(eks):
    hook = eks().hook
    assert PodbrokerHook("podbroker_default").target == "another"
    assert hook.target == TargetPlace(cluster=PLACE.cluster, namespace=PLACE.namespace)


NONE = NotFoundError("no target matches", reason="NO_SUCH_TARGET")
SEVERAL = InvalidRequestError(
    "invalid", reason="INVALID_REQUEST", field_violations=(FieldViolation(field="target.place", description="two"),)
)


WORDS = f"""\
No target of the broker fits cluster remote-kpo-demo, region us-east-1, namespace elsewhere, role_arn {ROLE}.
The broker offers:
  remote-kpo (cluster remote-kpo-demo, region us-east-1, namespace astro-remote-kpo, role_arn {ROLE}; differs in\
 namespace)
  other (cluster other, namespace n; differs in cluster, region, namespace, role_arn)
Correct the arguments or the AWS connection, or add to the broker's configuration:
  [[targets]]
  name = "remote-kpo-demo"
  kind = "eks"
  cluster = "remote-kpo-demo"
  region = "us-east-1"
  namespace = "elsewhere"
  role_arn = "{ROLE}"
and the name to the targets of this caller's token there."""


def test_no_target_says_what_there_is_and_what_to_configure(eks, aws, client, context):
    aws()
    client.refusals = [NONE]
    with pytest.raises(ex.RemotePodRefused) as caught:
        eks(namespace="elsewhere").execute(context)
    assert str(caught.value) == WORDS
    assert caught.value.__cause__ is NONE


def test_several_targets_say_what_to_add(eks, client, context):
    client.refusals = [SEVERAL]
    with pytest.raises(ex.RemotePodRefused) as caught:
        eks().execute(context)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("Several targets of the broker fit cluster remote-kpo-demo, namespace astro-remote-kpo.")
    assert lines[-1].startswith("Say more: region, and role_arn")
    assert "[[targets]]" not in lines


def test_a_retry_that_finds_no_target_says_the_same(eks, client):
    def refuse(*_, **__):
        raise NONE

    client.list = refuse
    with pytest.raises(ex.RemotePodRefused, match="No target of the broker fits"):
        eks().execute(s.make_context(try_number=2))


@pytest.mark.parametrize(
    ("targets", "said"), [((), "offers no target to this caller"), (UnavailableError("gone"), "Correct the arguments")]
)
def test_the_error_stands_also_without_a_list(eks, client, context, targets, said):
    def listed():
        if isinstance(targets, Exception):
            raise targets
        return targets

    client.refusals = [NONE]
    operator = eks()
    client.targets = listed
    with pytest.raises(ex.RemotePodRefused, match=said):
        operator.execute(context)


def test_another_refusal_is_told_as_it_is(eks, client, context):
    client.refusals = [InvalidSpecError("bad pod", reason="INVALID_SPEC")]
    with pytest.raises(ex.RemotePodInvalidSpec, match="bad pod"):
        eks().execute(context)
