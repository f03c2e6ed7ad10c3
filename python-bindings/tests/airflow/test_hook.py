"""The connection to the broker, and what Airflow is told about the provider."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

import airflow
import jsonschema
import pytest
import tomllib
from airflow.providers.cncf.kubernetes.hooks.kubernetes import PodOperatorHookProtocol
from certificates import Authority
from chains import ChainBroker, checks
from repository import PROJECT, page
from running import broker_at
from versions import Connection

from podbroker import TargetPlace
from podbroker.airflow._compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_2_PLUS, AirflowException, BaseHook
from podbroker.airflow.channel import open_channel
from podbroker.airflow.get_provider_info import get_provider_info
from podbroker.airflow.hook import CALL_RETRY_SECONDS, DEFAULT_PORT, PodbrokerHook
from podbroker.exceptions import UnavailableError

SECRET = "s3cr3t-t0ken"


@pytest.fixture
def connected(monkeypatch):
    """Make a hook on a connection."""

    def connect(*, target=None, **kwargs):
        if isinstance(kwargs.get("extra"), dict):
            kwargs["extra"] = json.dumps(kwargs["extra"])
        connection = Connection(conn_id="c", conn_type="podbroker", **kwargs)
        monkeypatch.setattr(PodbrokerHook, "get_connection", classmethod(lambda *_: connection))
        return PodbrokerHook("c", target=target)

    return connect


@pytest.fixture
def made(monkeypatch):
    """What the client was made with."""
    seen = {}
    monkeypatch.setattr(
        "podbroker.airflow.hook.Client", lambda address, **kwargs: seen.update(address=address, **kwargs)
    )
    return seen


@pytest.mark.parametrize(
    ("connection", "address"),
    [
        ({"host": "b.example.org", "port": 8443}, "https://b.example.org:8443"),
        ({"host": "b.example.org"}, f"https://b.example.org:{DEFAULT_PORT}"),
        ({"host": "b.example.org", "port": 80, "schema": "http"}, "http://b.example.org:80"),
        ({"host": "127.0.0.1", "port": 1}, "http://127.0.0.1:1"),
        ({"host": "localhost", "port": 1, "schema": "https"}, "https://localhost:1"),
        ({"host": "2001:db8::1", "port": 1}, "https://[2001:db8::1]:1"),
        ({"host": "::1", "port": 1}, "http://[::1]:1"),
        ({"host": "/run/podbroker.sock", "schema": "unix"}, "unix:/run/podbroker.sock"),
        ({"host": "https://b.example.org:1"}, "https://b.example.org:1"),
    ],
)
def test_the_address(connected, connection, address):
    assert connected(**connection).address == address


@pytest.mark.parametrize("connection", [{}, {"host": "x", "schema": "ftp"}])
def test_a_connection_that_says_nothing_useful_is_refused(connected, connection):
    with pytest.raises(AirflowException, match="'c'"):
        _ = connected(**connection).address


def test_the_client_gets_what_the_connection_says(connected, made):
    extra = {
        "ca_file": "/ca",
        "client_certificate_file": "/c",
        "client_key_file": "/k",
        "server_name": "n",
        "target": "t",
    }
    connected(host="h", port=1, password=SECRET, extra=extra).get_conn()
    assert made == {
        "address": "https://h:1",
        "token": SECRET,
        "retry_for": CALL_RETRY_SECONDS,
        "ca_file": "/ca",
        "client_certificate_file": "/c",
        "client_key_file": "/k",
        "server_name": "n",
    }


def test_the_token_may_be_in_a_file(connected, made):
    connected(host="h", extra={"token_file": "/token"}).get_conn()
    assert made["token_file"] == "/token"
    assert "token" not in made


@pytest.mark.usefixtures("made")
def test_two_tokens_are_one_too_many_and_neither_is_shown(connected):
    with pytest.raises(AirflowException, match="both") as caught:
        connected(host="h", password=SECRET, extra={"token_file": "/token"}).get_conn()
    assert SECRET not in str(caught.value)


@pytest.mark.usefixtures("made")
def test_the_token_is_in_no_representation(connected):
    hook = connected(host="h", password=SECRET)
    hook.get_conn()
    assert SECRET not in f"{hook!r} {hook}"


def test_the_operators_target_wins_over_the_connections(connected):
    assert connected(host="h", extra={"target": "default"}).target == "default"
    assert connected(host="h", target="mine", extra={"target": "default"}).target == "mine"
    assert connected(host="h", target={"cluster": "c"}).target == TargetPlace(cluster="c")
    with pytest.raises(AirflowException, match="No target"):
        _ = connected(host="h").target


def test_test_connection_says_who_we_are(connected):
    hook = connected(host="h")
    hook.conn = ChainBroker()
    assert hook.test_connection() == (
        True,
        "podbroker (version 1.2.3, instance main) knows us as subject airflow, tenant data",
    )


def test_test_connection_walks_the_way_to_the_default_target(connected):
    hook = connected(host="h", extra={"target": "there"})
    hook.conn = ChainBroker(*checks())
    good, words = hook.test_connection()
    assert good
    assert words.endswith("knows us as subject airflow, tenant data; target there can be used")
    assert hook.conn.checked == ["there"]


def test_test_connection_names_the_first_broken_link_and_its_fix(connected):
    hook = connected(host="h", extra={"target": "there"})
    hook.conn = ChainBroker(*checks("watch pods", "delete pods"))
    good, words = hook.test_connection()
    assert not good
    assert words == (
        "permission watch pods failed: not allowed in the namespace astro-remote-kpo."
        " Fix: add the verb watch on pods to the role bound in the namespace astro-remote-kpo"
    )


def test_test_connection_never_raises(connected):
    hook = connected(host="h")
    hook.conn = ChainBroker(error=UnavailableError("nobody there"))
    good, words = hook.test_connection()
    assert not good
    assert words.startswith("broker failed: nobody there. Fix: see that the broker runs")
    good, words = connected().test_connection()
    assert not good
    assert words.startswith("connection failed: The connection 'c' has no host. Fix: ")


def test_the_hook_has_what_the_pod_operator_expects_of_one(connected):
    hook = connected(host="h", target={"cluster": "c", "namespace": "n"})
    expected = [name for name in vars(PodOperatorHookProtocol) if not name.startswith("_")]
    assert expected
    assert all(name in vars(PodbrokerHook) for name in expected)
    assert hook.is_in_cluster is False
    assert hook.get_namespace() == "n"
    assert connected(host="h", target="t").get_namespace() is None
    with pytest.raises(AirflowException, match="broker holds the credentials"):
        _ = hook.core_v1_client


def test_the_provider_info_is_what_airflow_wants():
    schemas = Path(airflow.__file__).parent
    info = get_provider_info()
    for name in ("provider_info.schema.json", "provider.yaml.schema.json"):
        schema = json.loads((schemas / name).read_text())
        if name == "provider.yaml.schema.json":
            # The stricter one, of Airflow's own source tree, for the parts that it shares with ours.
            schema = {key: value for key, value in schema.items() if key in {"definitions", "$schema"}} | {
                "properties": {
                    key: value for key, value in schema["properties"].items() if key in {"connection-types", "config"}
                }
            }
        jsonschema.validate(info, schema)


def test_the_provider_info_names_what_exists():
    info = get_provider_info()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert info["package-name"] == project["name"]
    entry = project["entry-points"]["apache_airflow_provider"]["provider_info"]
    assert entry == "podbroker.airflow.get_provider_info:get_provider_info"
    (kind,) = info["connection-types"]
    module, _, name = kind["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert issubclass(hook, BaseHook)
    assert (hook.conn_type, hook.hook_name) == (kind["connection-type"], kind["hook-name"])
    for decorator in info["task-decorators"]:
        module, _, name = decorator["class-name"].rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
    for part in ("operators", "hooks"):
        for each in info[part]:
            for module in each["python-modules"]:
                importlib.import_module(module)
    assert info["config"]["podbroker"]["options"]["deployment_id"]["default"] == "airflow"


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="this Airflow reads the form from the hook")
def test_airflow_is_given_no_method_that_it_warns_of():
    assert "get_connection_form_widgets" not in vars(PodbrokerHook)
    assert "get_ui_field_behaviour" not in vars(PodbrokerHook)


def test_the_form_of_the_connection_is_shown_as_declared():
    """Asked of Airflow itself, which takes it from the provider info or from the hook, as its version does."""
    declared = get_provider_info()["connection-types"][0]
    if AIRFLOW_V_3_0_PLUS:
        from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

        forms = {each.connection_type: each for each in HookMetaService.hook_meta_data()}
        if forms["kubernetes"].extra_fields is None:
            pytest.skip("this Airflow shows no provider's fields without flask_appbuilder")
        extra, behaviour = forms["podbroker"].extra_fields, forms["podbroker"].standard_fields
        assert set(extra) == set(declared["conn-fields"])
        assert behaviour.password.title == "Token"
        assert behaviour.login.hidden is True
        assert behaviour.host.placeholder == "broker.example.org"
    else:
        from airflow.providers_manager import ProvidersManager

        manager = ProvidersManager()
        names = {name for name in manager.connection_form_widgets if name.startswith("extra__podbroker__")}
        assert names == {f"extra__podbroker__{name}" for name in declared["conn-fields"]}
        assert manager.field_behaviours["podbroker"]["relabeling"]["password"] == "Token"
        assert manager.field_behaviours["podbroker"]["hidden_fields"] == ["login"]


FROM_ENVIRONMENT = {
    "uri": "podbroker://:{token}@broker.example.org:8443/https?target=there&ca_file=%2Fetc%2Fca.pem",
    "json": '{{"conn_type": "podbroker", "host": "broker.example.org", "port": 8443, "schema": "https",'
    ' "password": "{token}", "extra": {{"target": "there", "ca_file": "/etc/ca.pem"}}}}',
}


@pytest.mark.parametrize("text", FROM_ENVIRONMENT.values(), ids=FROM_ENVIRONMENT)
def test_the_connection_may_stand_in_the_environment(monkeypatch, made, text):
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", text.format(token=SECRET))
    hook = PodbrokerHook("elsewhere")
    hook.get_conn()
    assert hook.target == "there"
    assert made == {
        "address": "https://broker.example.org:8443",
        "token": SECRET,
        "ca_file": "/etc/ca.pem",
        "retry_for": CALL_RETRY_SECONDS,
    }


def test_all_secrets_may_be_files_so_that_the_environment_holds_only_their_places(monkeypatch, made):
    files = {
        "token_file": "/var/run/secrets/podbroker/token",
        "ca_file": "/etc/podbroker/ca.pem",
        "client_certificate_file": "/etc/podbroker/tls.crt",
        "client_key_file": "/etc/podbroker/tls.key",
    }
    query = "&".join(f"{name}={place.replace('/', '%2F')}" for name, place in files.items())
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", f"podbroker://broker.example.org/https?{query}")
    PodbrokerHook("elsewhere").get_conn()
    address = f"https://broker.example.org:{DEFAULT_PORT}"
    assert made == {"address": address, "retry_for": CALL_RETRY_SECONDS, **files}


def test_a_socket_may_stand_in_a_uri(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", "podbroker://%2Frun%2Fpodbroker.sock/unix")
    assert PodbrokerHook("elsewhere").address == "unix:/run/podbroker.sock"


def test_the_connections_of_the_page_are_ones(monkeypatch, made):
    found = re.findall(r"^export AIRFLOW_CONN_(\w+)='(.*)'$", page("airflow.md"), re.MULTILINE)
    seen = {}
    for at, (_, text) in enumerate(found):
        monkeypatch.setenv(f"AIRFLOW_CONN_PAGE_{at}", text)
        made.clear()
        PodbrokerHook(f"page_{at}").get_conn()
        address = made.pop("address")
        assert re.fullmatch(r"https?://[a-z0-9.]+:\d+", address)
        assert made.pop("retry_for") == CALL_RETRY_SECONDS
        seen[at] = dict(made)
    assert seen == {
        0: {},
        1: {"token": "the-token", "ca_file": "/etc/ca.pem"},
        2: {"token_file": "/var/run/secrets/podbroker/token"},
        3: {"client_certificate_file": "/tls/tls.crt", "client_key_file": "/tls/tls.key", "ca_file": "/tls/ca.crt"},
    }


def test_a_token_and_a_client_certificate_in_files_reach_the_broker(monkeypatch, tmp_path):
    authority = Authority(tmp_path)
    authority.give("127.0.0.1", file="server")
    authority.give("worker", file="client")
    (tmp_path / "token").write_text("first\n")
    files = {
        "token_file": "token",
        "ca_file": "ca.pem",
        "client_certificate_file": "client.pem",
        "client_key_file": "client.key",
    }
    with broker_at("127.0.0.1:0", str(tmp_path)) as address:
        query = "&".join(f"{name}={quote(str(tmp_path / file), safe='')}" for name, file in files.items())
        host = address.removeprefix("https://")
        monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", f"podbroker://{host}/https?{query}")
        client = PodbrokerHook("elsewhere").get_conn()
        assert client.server_info().caller_subject == "worker Bearer first"
        # As the kubelet does when it renews a projected token: another file in the old one's place.
        (tmp_path / "renewed").write_text("the second\n")
        (tmp_path / "renewed").replace(tmp_path / "token")
        assert client.server_info().caller_subject == "worker Bearer the second"
        assert SECRET not in repr(client)


def test_triggers_that_start_after_a_certificate_was_renewed_have_the_new_one(monkeypatch, tmp_path):
    authority = Authority(tmp_path)
    authority.give("127.0.0.1", file="server")
    authority.give("one", file="client")
    with broker_at("127.0.0.1:0", str(tmp_path)) as address:
        host, port = address.removeprefix("https://").split(":")
        extra = {
            "ca_file": str(tmp_path / "ca.pem"),
            "client_certificate_file": str(tmp_path / "client.pem"),
            "client_key_file": str(tmp_path / "client.key"),
        }
        connection = {"conn_type": "podbroker", "host": host, "port": int(port), "schema": "https", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", json.dumps(connection))
        before = open_channel("elsewhere")
        assert before.client.server_info().caller_subject == "one"
        assert open_channel("elsewhere") is before
        authority.give("two", file="client")
        os.utime(tmp_path / "client.pem", ns=(0, 1))  # also where a clock ticks slowly
        assert open_channel("elsewhere").client.server_info().caller_subject == "two"


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("name", ["client_certificate_file", "client_key_file"])
def test_half_a_client_certificate_is_refused(connected, name):
    with pytest.raises(AirflowException, match="'c' has one of"):
        connected(host="h", extra={name: "/c"}).get_conn()


def test_a_file_that_is_not_there_is_named(connected):
    good, words = connected(host="h", extra={"ca_file": "/there/is/none.pem"}).test_connection()
    assert not good
    assert "/there/is/none.pem" in words


def test_a_token_file_that_is_not_there_is_named(connected):
    good, words = connected(host="127.0.0.1", port=1, extra={"token_file": "/there/is/none"}).test_connection()
    assert not good
    assert "/there/is/none" in words
