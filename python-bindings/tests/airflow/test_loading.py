"""What is imported beside an event loop: no pass of the garbage collector on its account, and none lost by it."""

from __future__ import annotations

import gc
import sys

import pytest

from podbroker.airflow.loading import load, loaded

HEAVY = "things = [[number] for number in range(200_000)]\n"


class Marked(list):
    """What the collector is asked about."""


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """Makes a module that can be imported once, and gives its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(text):
        name = f"loaded_by_{request.node.name}"
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make


@pytest.fixture
def passes():
    """The generations that were collected."""
    seen = []

    def note(phase, info):
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def test_an_import_that_makes_many_objects_starts_no_collection(module, passes):
    name = module(HEAVY)
    assert loaded(name) is None

    found = load(name)

    assert passes == []
    assert gc.isenabled()
    assert loaded(name) is found is load(name)


def test_the_same_import_would_have_started_some(module, passes):
    __import__(module(HEAVY))

    assert 1 in passes


def test_what_was_imported_is_collected_with_the_old_objects(module):
    name = module(f"{HEAVY}from test_loading import Marked\nmarked = Marked()\nmarked.append(marked)\n")
    found = load(name)
    assert any(type(one).__name__ == "Marked" for one in gc.get_objects(generation=2))
    assert gc.get_freeze_count() == 0

    del found.marked
    gc.collect()

    assert not any(type(one).__name__ == "Marked" for one in gc.get_objects())


def test_a_failed_import_leaves_the_collector_on_and_is_tried_again(module):
    name = module("raise RuntimeError('not now')")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="not now"):
            load(name)

    assert gc.isenabled()
    assert loaded(name) is None


def test_a_collector_that_is_off_stays_off(module):
    gc.disable()
    try:
        load(module(HEAVY))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_objects_that_were_frozen_stay_frozen(module):
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        load(module(HEAVY))
        assert gc.get_freeze_count() == pytest.approx(frozen, abs=1000)
        assert gc.isenabled()
    finally:
        gc.unfreeze()
