"""The scripted broker, and programs that run in a process of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from running import broker_at

from podbroker import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Gives the address of a broker that all tests share."""
    with broker_at("127.0.0.1:0") as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """Gives a client of that broker."""
    with Client(address) as client:
        yield client


@pytest.fixture
def run_program(address: str) -> Callable[[str], str]:
    """Runs a program in a new interpreter, where it finds the broker's ``address``, and gives what it printed."""

    def run(program: str) -> str:
        text = f"address = {address!r}\n{textwrap.dedent(program)}"
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", text],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
