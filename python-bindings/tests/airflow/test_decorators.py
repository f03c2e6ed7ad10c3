"""The task decorators: what they put into the pod, and what the function's process does there."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import textwrap

import pytest
import scripted as s
from repository import page
from versions import DagBag, on_airflow_3, task

from podbroker import ResultSource
from podbroker.airflow import decorators
from podbroker.airflow.operator import RemotePodOperator
from podbroker.airflow.script import (
    BOOTSTRAP,
    INPUT_VARIABLE,
    MOST_BYTES,
    SCRIPT_VARIABLE,
    packed,
    script_of,
    source_of,
)


def test_the_value_of_the_pod_is_the_value_of_the_task(client, context):
    @task.remote_pod(image="python:3", target="somewhere", do_xcom_push=True, multiple_outputs=True)
    def function(number): ...

    client.script = [s.result(b'{"a": 1, "b": [2]}'), s.end()]
    operator = function(7).operator
    assert operator.execute(context) == {"a": 1, "b": [2]}
    (container,) = client.submits[0]["pod"]["spec"]["containers"]
    assert container["command"] == ["python", "-c", BOOTSTRAP]
    assert client.submits[0]["policies"].result.name == "SIDECAR"


def test_a_command_is_run_as_any_other_pod(client, context):
    @task.remote_pod_cmd(image="busybox", target="somewhere")
    def command():
        return ["echo", "a"]

    client.script = [s.end()]
    assert command().operator.execute(context) is None
    (container,) = client.submits[0]["pod"]["spec"]["containers"]
    assert container["command"] == ["echo", "a"]
    assert container.get("args", []) == []


def run_in_pod(operator, tmp_path, *, python=sys.executable):
    """Run the container's command as the kubelet would, without anything else in its environment."""
    pod = operator.build_pod_request_obj(s.make_context())
    (container,) = pod.spec.containers
    environment = {each.name: each.value for each in container.env}
    command = [python if each == "python" else each for each in container.command]
    return subprocess.run(
        [each.replace("/airflow/xcom", str(tmp_path)) for each in command],
        env={**environment, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )


@pytest.fixture
def prepared(monkeypatch, context):
    """Run ``execute`` of a decorated task up to the place where the pod is made."""
    monkeypatch.setattr(RemotePodOperator, "execute", lambda *_: None)
    monkeypatch.setitem(decorators.RESULT_FILES, ResultSource.SIDECAR, ("return.json",))
    message = ("return.json", "termination-log")
    monkeypatch.setitem(decorators.RESULT_FILES, ResultSource.TERMINATION_MESSAGE, message)

    def prepare(decorated, *args, **kwargs):
        operator = decorated(*args, **kwargs).operator
        operator.execute(context)
        return operator

    return prepare


def test_the_function_runs_in_the_pod_with_its_arguments_and_hands_back_its_value(prepared, tmp_path):
    @task.remote_pod(image="python:3", do_xcom_push=True)
    def add(a, b, *more, text="ü"):
        # A comment stays.
        import math

        print("adding", text)
        return {"sum": a + b + sum(more), "pi": math.floor(math.pi)}

    done = run_in_pod(prepared(add, 1, 2, 3, text="käse\n{{ ds }}"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "adding käse\n{{ ds }}\n"
    assert json.loads((tmp_path / "return.json").read_text()) == {"sum": 6, "pi": 3}


@pytest.mark.parametrize("there", ["return.json", "termination-log"])
def test_a_value_goes_into_the_file_of_the_termination_message_that_is_there(prepared, tmp_path, there):
    @task.remote_pod(image="python:3", do_xcom_push=True, result_source="TERMINATION_MESSAGE")
    def value():
        return 42

    (tmp_path / there).touch()
    done = run_in_pod(prepared(value), tmp_path)
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {there: "42"}


def test_a_function_without_a_value_writes_no_result(prepared, tmp_path):
    @task.remote_pod(image="python:3", do_xcom_push=True)
    def nothing(): ...

    assert run_in_pod(prepared(nothing), tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_without_xcom_the_value_stays_in_the_pod(prepared, tmp_path):
    @task.remote_pod(image="python:3")
    def value():
        return object()

    assert run_in_pod(prepared(value), tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_no_json_fails_the_pod_and_leaves_no_half_result(prepared, tmp_path):
    @task.remote_pod(image="python:3", do_xcom_push=True)
    def value():
        return [1, object()]

    done = run_in_pod(prepared(value), tmp_path)
    assert done.returncode == 1
    assert "not JSON serializable" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_failure_shows_the_lines_of_the_function(prepared, tmp_path):
    @task.remote_pod(image="python:3")
    def broken(number):
        return 1 // number  # the culprit

    done = run_in_pod(prepared(broken, 0), tmp_path)
    assert done.returncode == 1
    assert 'File "task.py"' in done.stderr
    assert "return 1 // number  # the culprit" in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")


def test_the_functions_own_processes_do_not_inherit_its_arguments(prepared, tmp_path):
    @task.remote_pod(image="python:3")
    def names():
        import os

        print(sorted(name for name in os.environ if name.startswith("PODBROKER")))

    assert run_in_pod(prepared(names), tmp_path).stdout == "[]\n"


def test_dill_takes_what_pickle_does_not(prepared, tmp_path):
    pytest.importorskip("dill")

    @task.remote_pod(image="python:3", use_dill=True)
    def call(function):
        print(function(2))

    assert run_in_pod(prepared(call, eval("lambda number: number + 40", {})), tmp_path).stdout == "42\n"  # noqa: S307 -- a function of no module


def test_the_command_needs_no_shell_and_no_file(prepared):
    @task.remote_pod(image="python:3", python="/usr/bin/python3", env_vars={"MINE": "1"})
    def function(): ...

    operator = prepared(function)
    assert operator.cmds == ["/usr/bin/python3", "-c", BOOTSTRAP]
    assert operator.arguments == []
    assert [each.name for each in operator.env_vars] == ["MINE", SCRIPT_VARIABLE, INPUT_VARIABLE]
    # A try in the same process does not add them once more.
    operator.execute(s.make_context())
    assert len(operator.env_vars) == 3


def test_what_does_not_fit_is_refused_in_words(prepared):
    @task.remote_pod(image="python:3")
    def function(content): ...

    with pytest.raises(ValueError, match=f"too large to go along with the pod: .* at most {MOST_BYTES} fit"):
        prepared(function, os.urandom(200_000))
    assert len(packed(b"a" * 10_000_000)) < MOST_BYTES


def test_the_name_of_the_pod_follows_the_function_unless_it_is_given():
    @task.remote_pod(image="python:3")
    def my_function(): ...

    @task.remote_pod_cmd(image="busybox", name="mine", random_name_suffix=False)
    def other(): ...

    assert my_function().operator.name == "k8s-airflow-pod-my_function"
    assert other().operator.name == "mine"
    assert other().operator.random_name_suffix is False


def double(function):
    @functools.wraps(function)
    def doubled(*args):
        return 2 * function(*args)

    return doubled


def test_a_task_decorator_of_another_name_cannot_be_told_from_others():
    named = task.remote_pod

    @named(image="python:3")
    @double
    def function(): ...

    with pytest.raises(ValueError, match="function has several decorators"):
        source_of(function.function)


def test_decorators_below_the_task_belong_to_the_function_and_those_above_do_not():
    named = task.remote_pod

    @functools.lru_cache
    @task.remote_pod(
        image="python:3",
    )
    @double
    def function(a):
        return a

    @named(image="python:3")
    def other(): ...

    text = source_of(function.__wrapped__.function if hasattr(function, "__wrapped__") else function.function)
    assert text.startswith("@double\ndef function(a):\n")
    assert source_of(other.function).startswith("def other")


@pytest.mark.parametrize("thing", [lambda: 1, functools.partial(print), len], ids=["lambda", "partial", "builtin"])
def test_what_has_no_source_of_its_own_is_refused(thing):
    with pytest.raises(ValueError, match="cannot run in a pod"):
        source_of(thing)


def test_the_script_is_plain_python_of_old_versions():
    script = script_of(source="def f(): ...\n", function="f", pickler="pickle", result_files=["/x"])
    for text in (script, BOOTSTRAP):
        compile(text, "text", "exec", dont_inherit=True)


def test_the_command_comes_from_the_function_with_arguments_context_and_templates(prepared):
    @task.remote_pod_cmd(image="busybox")
    def command(folder, run_id=None, *, times=1):
        return ["echo", folder, run_id, "{{ run_id }}", str(times)]

    operator = prepared(command, "/data", times=3)
    assert operator.cmds == ["echo", "/data", "manual__2026-11-21", "manual__2026-11-21", "3"]
    assert operator.arguments == []


def test_a_value_that_looks_like_a_template_is_rendered_once(prepared):
    @task.remote_pod_cmd(image="busybox", labels={"a": "{{ run_id }}"})
    def command():
        return ["echo", "{{ '{{ run_id }}' }}"]

    operator = prepared(command)
    assert operator.cmds == ["echo", "{{ run_id }}"]
    assert operator.labels == {"a": "{{ run_id }}"}


def test_args_only_leaves_the_images_own_entry_point(prepared):
    @task.remote_pod_cmd(image="busybox", args_only=True)
    def command():
        return ["a", "b"]

    operator = prepared(command)
    assert (operator.cmds, operator.arguments) == ([], ["a", "b"])


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("echo", TypeError, "list of strings, not str"),
        (None, TypeError, "not NoneType"),
        (["a", 1, None], TypeError, "there is NoneType, int in it"),
        ([], ValueError, "empty list"),
    ],
)
def test_what_is_no_command_is_refused(prepared, value, error, words):
    @task.remote_pod_cmd(image="busybox")
    def command():
        return value

    with pytest.raises(error, match=f"^command .*{words}"):
        prepared(command)


def test_a_command_beside_the_functions_is_warned_of():
    def command(): ...

    decorated = task.remote_pod_cmd(image="busybox", cmds=["a"], arguments=["b"])(command)
    with pytest.warns(UserWarning, match="The `cmds` and `arguments` are unused"):
        decorated()


DAG = """
try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow import DAG
    from airflow.decorators import task

with DAG("decorated", schedule=None) as dag:

    @task.remote_pod(image="python:3", target="{{ params.x }}", do_xcom_push=True)
    def one(number):
        return [number]

    @task.remote_pod(image="python:3", do_xcom_push=True, multiple_outputs=True)
    def three():
        return {"a": 1}

    @task.remote_pod_cmd(image="busybox")
    def two(number):
        return ["echo", number]

    two.expand(number=one.override(task_id="first")(7))
    two.override(task_id="last")(three()["a"])
"""


def test_airflow_knows_the_decorators_maps_them_and_reads_a_dag_with_them(tmp_path):
    path = tmp_path / "decorated.py"
    path.write_text(textwrap.dedent(DAG))
    bag = DagBag(dag_folder=str(path))
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    assert isinstance(dag.get_task("first"), RemotePodOperator)
    assert "Mapped" in type(dag.get_task("two")).__name__
    assert dag.get_task("two").upstream_task_ids == {"first"}
    assert dag.get_task("three").multiple_outputs


def test_every_template_field_is_an_attribute():
    @task.remote_pod(image="python:3")
    def one(): ...

    @task.remote_pod_cmd(image="busybox")
    def two(): ...

    for operator in (one().operator, two().operator):
        assert all(hasattr(operator, name) for name in operator.template_fields)
        assert {"op_args", "op_kwargs", "image", "target", "env_vars"} <= set(operator.template_fields)
    assert "cmds" not in one().operator.template_fields


@on_airflow_3
@pytest.mark.usefixtures("prepared")
def test_the_example_of_the_page_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", page("operators", "task-decorators.md"), re.DOTALL)
    path = tmp_path / "dag.py"
    path.write_text(example)
    bag = DagBag(dag_folder=str(path))
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    rows, report = dag.get_task("rows"), dag.get_task("report")
    assert report.upstream_task_ids == {"rows"}
    rows.execute(s.make_context())
    done = run_in_pod(rows, tmp_path)
    assert done.stdout.startswith("counting orders with sqlite 3."), done.stderr
    assert json.loads((tmp_path / "return.json").read_text()) == 42
    report.op_args = (42,)
    report.execute(s.make_context())
    assert report.cmds == ["echo", "42 rows in manual__2026-11-21"]
