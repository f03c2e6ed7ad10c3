"""The picture of the chain, checked word by word, and what a broken link becomes.

`BLESS=1 pytest tests/airflow/test_chain.py` writes the pictures anew; review them as text.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from chains import EKS, KUBECONFIG, PLACE, ChainBroker, checks
from versions import Connection

from podbroker import Check, CheckStatus
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException
from podbroker.airflow.chain import Chain, readable
from podbroker.airflow.hook import PodbrokerHook
from podbroker.exceptions import (
    FieldViolation,
    InvalidRequestError,
    NotAuthenticatedError,
    UnavailableError,
)

PICTURES = Path(__file__).parent / "pictures"
ASKER = "task test_eks_connectivity.walk_the_chain"


@pytest.fixture
def hooked(monkeypatch):
    """Make a hook whose client is given."""

    def hook(broker, *, target="remote-kpo", **kwargs):
        extra = json.dumps({"target": target} if target else {})
        connection = Connection(
            conn_id="c", conn_type="podbroker", **{"host": "broker.example.org", "extra": extra} | kwargs
        )
        monkeypatch.setattr(PodbrokerHook, "get_connection", classmethod(lambda *_: connection))
        made = PodbrokerHook("c")
        if broker is not None:
            made.conn = broker
        return made

    return hook


def same(name, chain):
    picture = "\n".join(chain.picture()) + "\n"
    path = PICTURES / f"{name}.txt"
    if os.environ.get("BLESS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(picture)
    assert picture == path.read_text()


@pytest.mark.parametrize(("name", "rows"), [("eks", EKS), ("kubeconfig", KUBECONFIG)])
def test_a_chain_that_holds(hooked, name, rows):
    chain = hooked(ChainBroker(*checks(rows=rows))).check_chain(asker=ASKER)
    same(name, chain)
    assert chain.broken is None
    chain.raise_if_broken()


@pytest.mark.parametrize("row", [row for row in EKS if row[0] not in {"caller", "permission"}], ids=lambda row: row[0])
def test_a_chain_that_is_broken_at_one_link(hooked, row):
    link, subject, _, bad, fix = row
    chain = hooked(ChainBroker(*checks(link))).check_chain(asker=ASKER)
    same(f"broken-{link}", chain)
    with pytest.raises(ex.RemotePodChainBroken) as caught:
        chain.raise_if_broken()
    assert (caught.value.link, caught.value.subject, caught.value.fix) == (link, subject, fix)
    assert str(caught.value) == f"{link} failed: {bad}. Fix: {fix}"
    assert isinstance(caught.value, AirflowException)


def test_each_missing_verb_is_shown_and_the_first_is_the_error(hooked):
    chain = hooked(ChainBroker(*checks("patch pods", "get pods/log"))).check_chain(asker=ASKER)
    same("broken-permission", chain)
    with pytest.raises(ex.RemotePodChainBroken, match=r"^permission patch pods failed: .* Fix: add the verb patch"):
        chain.raise_if_broken()


BEFORE = {
    "unreachable": (ChainBroker(error=UnavailableError("connection refused")), "broker", "see that the broker runs"),
    "unknown-caller": (
        ChainBroker(error=NotAuthenticatedError("the token is not known")),
        "caller",
        "put a token that the broker knows into the password of the Airflow connection c",
    ),
    "ambiguous": (
        ChainBroker(
            check_error=InvalidRequestError(
                "invalid request",
                field_violations=(
                    FieldViolation(field="target.place", description="matches more than one target, such as a and b"),
                ),
            )
        ),
        "target",
        "name one target that the broker has",
    ),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_chain_that_is_broken_before_the_target(hooked, name):
    broker, link, fix = BEFORE[name]
    chain = hooked(broker).check_chain(asker=ASKER)
    same(name, chain)
    assert chain.broken.link == link
    assert chain.broken.fix.startswith(fix)


def test_a_chain_without_a_useful_connection(hooked):
    chain = hooked(None, host="").check_chain(asker=ASKER)
    same("no-connection", chain)
    assert chain.broken.link == "connection"


def test_a_broker_that_goes_away_in_between_is_a_broken_link(hooked):
    class Dying(ChainBroker):
        def check(self, target):  # noqa: ARG002 -- as the client has it
            yield checks()[0]
            raise UnavailableError("draining")

    chain = hooked(Dying()).check_chain()
    assert [check.link for check in chain.checks] == ["connection", "broker", "caller", "broker"]
    assert chain.broken.detail == "draining"


def test_without_a_target_the_chain_ends_at_the_broker(hooked):
    broker = ChainBroker()
    chain = hooked(broker, target=None).check_chain()
    assert chain.broken is None
    assert broker.checked == []
    assert [line.split(" ")[1] for line in chain.picture() if line.startswith("┌")] == ["Airflow", "podbroker"]


def test_a_link_of_a_newer_broker_has_a_box_of_its_own(hooked):
    new = Check(link="moon-phase", subject="", status=CheckStatus.FAILED, detail="wrong", fix="wait")
    chain = hooked(ChainBroker(*checks(), new)).check_chain()
    assert chain.picture()[-4].startswith("┌─ moon-phase ")
    assert chain.broken is new


def test_a_warning_is_drawn_and_breaks_nothing(hooked):
    away = Check(
        link="archive",
        subject="",
        status=CheckStatus.WARNING,
        detail="the archive did not answer within 10 s",
        fix="check that the store answers",
    )
    lease = Check(
        link="permission", subject="list leases", status=CheckStatus.WARNING, detail="not allowed", fix="add it"
    )
    hook = hooked(ChainBroker(*checks(), lease, away))
    chain = hook.check_chain(asker=ASKER)
    same("warnings", chain)
    assert chain.broken is None
    chain.raise_if_broken()
    assert hook.test_connection()[0]


def test_an_answer_of_a_kind_that_is_not_known_is_neither_good_nor_broken():
    odd = Check(link="role", subject="", status=CheckStatus.UNKNOWN, detail="?", fix="")
    chain = Chain(checks=(odd,))
    assert chain.broken is None
    assert chain.picture()[0].endswith(" unknown ─┐")


def test_the_lines_of_a_picture_are_of_one_length():
    for path in PICTURES.glob("*.txt"):
        framed = [line for line in path.read_text().splitlines() if line[0] in "┌│└"]
        assert len({len(line) for line in framed}) == 1, path.name
        assert len(framed[0]) <= 100


def test_a_place_is_named_by_its_parts():
    assert readable("there") == "there"
    assert readable(PLACE) == (
        "cluster remote-kpo-demo, region us-east-1, namespace astro-remote-kpo,"
        " role_arn arn:aws:iam::111122223333:role/AstroRemoteKPO"
    )
