"""Signals, forks, threads: what a process of Python may rely on.

Each program runs in an interpreter of its own. Times are bounds that a hang would pass and a slow machine would not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[str], str]


def test_import_starts_no_thread_and_connects_nowhere(run_program: Run) -> None:
    assert (
        run_program("""
        import os, podbroker
        client = podbroker.Client("http://127.0.0.1:1")
        watch = client.watch("x")
        print(len(os.listdir("/proc/self/task")))
        """)
        == "1\n"
    )


def test_import_brings_no_grpc_and_no_protobuf(run_program: Run) -> None:
    assert (
        run_program("""
        import sys, podbroker
        print({"grpc", "google.protobuf", "airflow", "asyncio", "typing_extensions"} & set(sys.modules))
        """)
        == "set()\n"
    )


def test_a_client_adds_little_memory(run_program: Run) -> None:
    """Counted with all pages of the module's file, and beside the modules that a task process has anyway."""
    grown = run_program("""
        import dataclasses, datetime, enum, json, typing
        def resident():
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        before = resident()
        import podbroker
        watch = podbroker.Client(address).watch("lines/200/1000")
        assert sum(len(event.lines) for event in watch if isinstance(event, podbroker.LogChunk)) == 200_000
        print(resident() - before)
    """)
    assert int(grown) < 15 * 1024, "KiB"


def test_a_signal_handler_runs_while_poll_waits(run_program: Run) -> None:
    assert (
        run_program("""
        import podbroker, signal, time
        watch = podbroker.Client(address).watch("quiet")
        watch.poll()
        ran = []
        signal.signal(signal.SIGALRM, lambda *_: ran.append(time.monotonic()))
        begin = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert watch.poll(timeout=3) is None
        end = time.monotonic()
        print(len(ran), ran[0] - begin < 2, end - begin >= 3)
        """)
        == "1 True True\n"
    )


def test_wake_in_a_signal_handler_ends_the_poll(run_program: Run) -> None:
    assert (
        run_program("""
        import podbroker, signal
        watch = podbroker.Client(address).watch("quiet")
        watch.poll()
        signal.signal(signal.SIGALRM, lambda *_: watch.wake())
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        print(watch.poll(), watch.ended)
        """)
        == "None False\n"
    )


def test_keyboard_interrupt_ends_a_call_and_a_poll(run_program: Run) -> None:
    assert (
        run_program("""
        import os, podbroker, signal, threading
        # Whoever runs the tests in the background may have had the signal ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        client = podbroker.Client(address)
        watch = client.watch("quiet")
        watch.poll()
        for wait in (watch.poll, lambda: next(watch), lambda: client.get("silent")):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                wait()
            except KeyboardInterrupt:
                print("interrupted")
        print(client.get("ok").execution_id)
        """)
        == "interrupted\ninterrupted\ninterrupted\nid-1\n"
    )


def test_an_exception_of_a_handler_comes_out_of_poll(run_program: Run) -> None:
    assert (
        run_program("""
        import podbroker, signal
        class Timeout(Exception): pass
        def handler(*_): raise Timeout
        watch = podbroker.Client(address).watch("quiet")
        watch.poll()
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            watch.poll()
        except Timeout:
            print("timeout", watch.ended)
        """)
        == "timeout False\n"
    )


def test_another_thread_runs_while_one_waits(run_program: Run) -> None:
    assert (
        run_program("""
        import podbroker, threading
        watch = podbroker.Client(address).watch("quiet")
        watch.poll()
        counted = []
        def count():
            for number in range(100_000):
                counted.append(number)
            watch.wake()
        threading.Thread(target=count).start()
        watch.poll()
        print(len(counted))
        """)
        == "100000\n"
    )


def test_the_threads_of_the_runtime_block_all_signals(run_program: Run) -> None:
    assert (
        run_program("""
        import os, podbroker, signal
        podbroker.Client(address.replace("127.0.0.1", "localhost")).server_info()
        masks = set()
        for task in os.listdir("/proc/self/task"):
            if int(task) != os.getpid():
                with open(f"/proc/self/task/{task}/status") as file:
                    masks |= {int(line.split()[1], 16) for line in file if line.startswith("SigBlk")}
        # The kernel lets nobody block the first two, and the C library keeps 32 and 33 for itself.
        wanted = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}
        print(len(masks) > 0, all(mask >> (number - 1) & 1 for mask in masks for number in wanted))
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        """)
        == "True True\nset()\n"
    )


FORK = """
import asyncio, os, podbroker, signal, threading
def in_child(work):
    pid = os.fork()
    if pid == 0:
        # A hang must not become a test that waits for ever.
        signal.alarm(20)
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_client_works_on_in_a_forked_child_and_in_its_parent(run_program: Run) -> None:
    assert (
        run_program(
            FORK
            + """
client = podbroker.Client(address)
client.get("ok")
def work():
    assert client.get("ok").execution_id == "id-1"
    assert asyncio.run(client.get_async("ok")).execution_id == "id-1"
    assert in_child(lambda: client.get("ok")) == 0
print(in_child(work), in_child(work), client.get("ok").execution_id)
"""
        )
        == "0 0 id-1\n"
    )


def test_a_watch_goes_on_in_a_forked_child_and_in_its_parent(run_program: Run) -> None:
    assert (
        run_program(
            FORK
            + """
watch = podbroker.Client(address).watch("lines/5/1")
def number(event):
    return int(event.lines[0].content.split()[1])
next(watch)
assert number(next(watch)) == 0
def work():
    assert [number(event) for event in watch if isinstance(event, podbroker.LogChunk)] == [1, 2, 3, 4]
print(in_child(work), [number(event) for event in watch if isinstance(event, podbroker.LogChunk)])
"""
        )
        == "0 [1, 2, 3, 4]\n"
    )


def test_a_fork_while_other_threads_wait_leaves_the_child_free(run_program: Run) -> None:
    assert (
        run_program(
            FORK
            + """
client = podbroker.Client(address)
watch = client.watch("quiet")
next(watch)
threads = [threading.Thread(target=watch.poll, daemon=True) for _ in range(3)]
busy = threading.Event()
def hammer():
    while not busy.is_set():
        client.get("ok")
threads.append(threading.Thread(target=hammer))
for thread in threads:
    thread.start()
def work():
    assert client.get("ok").execution_id == "id-1"
    watch.wake()
    assert watch.poll() is None
    assert isinstance(watch.poll(timeout=0.1), podbroker.StateChanged | None)
    watch.close()
    client.close()
codes = [in_child(work) for _ in range(10)]
busy.set()
watch.close()
for thread in threads:
    thread.join()
print(codes)
"""
        )
        == f"{[0] * 10}\n"
    )


def test_a_forked_child_ends_by_itself(run_program: Run) -> None:
    """The interpreter's own end, which drops what the parent left it."""
    assert (
        run_program("""
        import os, podbroker, signal
        client = podbroker.Client(address)
        watch = client.watch("quiet")
        next(watch)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            del watch, client
            raise SystemExit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), watch.poll(timeout=0.01))
        """)
        == "7 None\n"
    )


def test_the_interpreter_ends_while_a_call_is_under_way(run_program: Run) -> None:
    assert (
        run_program("""
        import asyncio, podbroker, threading
        client = podbroker.Client(address)
        threading.Thread(target=client.watch("quiet").poll, daemon=True).start()
        async def main():
            task = asyncio.create_task(client.get_async("silent"))
            print((await client.get_async("ok")).execution_id)
        asyncio.run(main())
        """)
        == "id-1\n"
    )
