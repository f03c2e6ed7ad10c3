"""A PostgreSQL of the run's own, made by the machine's programs: SQLite lets one of twenty tasks write at a time."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.network import free_port
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Debian keeps the programs of a server out of the search path.
_DEBIAN: Final = Path("/usr/lib/postgresql")
#: PostgreSQL refuses to run as root; its packages make this user.
_USER: Final = "postgres"
#: Nothing here outlives the run.
_SETTINGS: Final = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=400")


def programs() -> Path | None:
    """The folder of the server's programs, if the machine has them."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return max((path.parent for path in _DEBIAN.glob("*/bin/initdb")), default=None)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Runs a server and gives the address of its database."""
    folder = programs()
    if folder is None:
        raise AssertionError("there is no PostgreSQL; on Debian: apt-get install postgresql")
    data = Path(tempfile.mkdtemp(prefix="kills-database-"))
    as_user: tuple[str, ...] = ()
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        os.chown(data, user.pw_uid, user.pw_gid)
        as_user = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")
    port = free_port()
    try:
        make: list[str | Path] = [
            *as_user,
            folder / "initdb",
            f"--pgdata={data}",
            "--auth=trust",
            "--username=airflow",
            "--no-sync",
        ]
        subprocess.run(
            [*make, "--encoding=UTF8", "--locale=C"], check=True, cwd="/", stdin=subprocess.DEVNULL, capture_output=True
        )
        with (data / "log").open("wb") as log:
            server = subprocess.Popen(
                [
                    *(*as_user, "setpriv", "--pdeathsig", "INT", "--"),
                    *(folder / "postgres", "-D", data, "-p", str(port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                    *(part for setting in _SETTINGS for part in ("-c", setting)),
                ],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            ready: list[str | Path] = [folder / "pg_isready", "--host=127.0.0.1", f"--port={port}", "--quiet"]
            wait_for("PostgreSQL", lambda: subprocess.run(ready, check=False).returncode == 0, every=0.2)
            yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"
        finally:
            # Ends at once, whoever is connected.
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)
    finally:
        shutil.rmtree(data)
