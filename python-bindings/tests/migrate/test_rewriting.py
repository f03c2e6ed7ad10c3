"""What becomes of imports, and of nothing else."""

from __future__ import annotations

import random
import re
import sys
import types

import pytest

from podbroker.migrate.analysis import analyse
from podbroker.migrate.names import DECORATORS, MODULES, OPERATORS

POD = "airflow.providers.cncf.kubernetes.operators.pod"
EKS = "airflow.providers.amazon.aws.operators.eks"
OURS = "from podbroker.airflow import RemotePodOperator as KubernetesPodOperator"

CASES = {
    "the import of DAG authors": (
        f"from {POD} import KubernetesPodOperator\n",
        f"{OURS}\n",
    ),
    "one that has another name": (
        f"from {POD} import KubernetesPodOperator as KPO  # short\n",
        "from podbroker.airflow import RemotePodOperator as KPO  # short\n",
    ),
    "the place of older providers": (
        "from airflow.providers.cncf.kubernetes.operators.kubernetes_pod import KubernetesPodOperator\n",
        f"{OURS}\n",
    ),
    "the place of Airflow 1.10": (
        "from airflow.contrib.operators.kubernetes_pod_operator import KubernetesPodOperator\n",
        f"{OURS}\n",
    ),
    "Amazon's operator": (f"from {EKS} import EksPodOperator\n", "from podbroker.airflow import EksPodOperator\n"),
    "Amazon's operator under its first name": (
        f"from {EKS} import EKSPodOperator\n",
        "from podbroker.airflow import EksPodOperator as EKSPodOperator\n",
    ),
    "parentheses stay with their comments": (
        f"from {POD} import (  # a\n    # b\n    KubernetesPodOperator,  # c\n    # d\n)  # e\n",
        "from podbroker.airflow import (  # a\n    # b\n    RemotePodOperator as KubernetesPodOperator,  # c\n"
        "    # d\n)  # e\n",
    ),
    "the first of several names": (
        f"from {POD} import KubernetesPodOperator, OnFinishAction\n",
        f"{OURS}\nfrom {POD} import OnFinishAction\n",
    ),
    "the last of several names": (
        f"from {POD} import A, KubernetesPodOperator # x\n",
        f"{OURS}\nfrom {POD} import A # x\n",
    ),
    "one in the middle, with its comment": (
        f"from {POD} import (\n    A,  # a\n    KubernetesPodOperator,  # k\n    B,  # b\n)\n",
        f"{OURS}  # k\nfrom {POD} import (\n    A,  # a\n    B,  # b\n)\n",
    ),
    "the last of a column": (
        f"from {POD} import (\n    A,  # a\n    KubernetesPodOperator,  # k\n)\n",
        f"{OURS}  # k\nfrom {POD} import (\n    A,  # a\n)\n",
    ),
    "lines of comments stay where they are": (
        f"from {POD} import (\n    # one\n    A,\n    # two\n    KubernetesPodOperator,\n    # three\n    B,\n    # four\n)\n",
        f"{OURS}\nfrom {POD} import (\n    # one\n    A,\n    # two\n    # three\n    B,\n    # four\n)\n",
    ),
    "the last before a parenthesis": (
        f"from {POD} import (A,  # a\n    KubernetesPodOperator)\n",
        f"{OURS}\nfrom {POD} import (A,  # a\n)\n",
    ),
    "names over lines that are continued": (
        f"from {POD} import A, \\\n    KubernetesPodOperator, \\\n    B\n",
        f"{OURS}\nfrom {POD} import A, \\\n    B\n",
    ),
    "an import in a function": (
        f"def f():\n\tfrom {POD} import A, KubernetesPodOperator\n\treturn KubernetesPodOperator\n",
        f"def f():\n\t{OURS}\n\tfrom {POD} import A\n\treturn KubernetesPodOperator\n",
    ),
    "an import that depends on something": (
        f"if x: from {POD} import A, KubernetesPodOperator\nelse: pass\n",
        f"if x: {OURS}; from {POD} import A\nelse: pass\n",
    ),
    "statements on one line": (
        f"import os; from {POD} import KubernetesPodOperator, A; import re\n",
        f"import os; {OURS}; from {POD} import A; import re\n",
    ),
    "an import for types only": (
        f"if TYPE_CHECKING:\n    from {POD} import KubernetesPodOperator\n",
        f"if TYPE_CHECKING:\n    {OURS}\n",
    ),
    "both ways of an import that is tried": (
        f"try:\n    from {POD} import KubernetesPodOperator\nexcept ImportError:\n"
        "    from airflow.providers.cncf.kubernetes.operators.kubernetes_pod import KubernetesPodOperator\n",
        f"try:\n    {OURS}\nexcept ImportError:\n    {OURS}\n",
    ),
    "a module by another name": (
        f"import {POD} as kpo\nt = kpo.KubernetesPodOperator(image='i')\n",
        "import podbroker.airflow as kpo\nt = kpo.RemotePodOperator(image='i')\n",
    ),
    "a module among others": (
        f"import os, {POD} as kpo, re\nt = kpo.KubernetesPodOperator()\n",
        "import podbroker.airflow as kpo\nimport os, re\nt = kpo.RemotePodOperator()\n",
    ),
    "a module that is used for more stays": (
        f"import {POD} as kpo\nt = kpo.KubernetesPodOperator(on_finish_action=kpo.OnFinishAction.KEEP_POD)\n",
        f"import podbroker.airflow\nimport {POD} as kpo\n"
        "t = podbroker.airflow.RemotePodOperator(on_finish_action=kpo.OnFinishAction.KEEP_POD)\n",
    ),
    "a module by its whole name": (
        f"import {POD}\nt = {POD}.KubernetesPodOperator()\n",
        "import podbroker.airflow\nt = podbroker.airflow.RemotePodOperator()\n",
    ),
    "a module by its whole name, whose package is used for more": (
        f"import {POD}\nd = airflow.DAG('d')\nt = {POD}.KubernetesPodOperator()\n",
        f"import podbroker.airflow\nimport {POD}\nd = airflow.DAG('d')\nt = podbroker.airflow.RemotePodOperator()\n",
    ),
    "a module from its package": (
        "from airflow.providers.cncf.kubernetes.operators import pod, job\nt = pod.KubernetesPodOperator()\njob.x\n",
        "import podbroker.airflow as pod\nfrom airflow.providers.cncf.kubernetes.operators import job\n"
        "t = pod.RemotePodOperator()\njob.x\n",
    ),
    "a package above the module": (
        "import airflow.providers.cncf.kubernetes.operators as ops\nt = ops.pod.KubernetesPodOperator()\n",
        "import podbroker.airflow\nimport airflow.providers.cncf.kubernetes.operators as ops\n"
        "t = podbroker.airflow.RemotePodOperator()\n",
    ),
    "two imports of one name": (
        f"try:\n    import {POD} as p\nexcept ImportError:\n"
        "    import airflow.contrib.operators.kubernetes_pod_operator as p\nt = p.KubernetesPodOperator()\n",
        "try:\n    import podbroker.airflow as p\nexcept ImportError:\n    import podbroker.airflow as p\n"
        "t = p.RemotePodOperator()\n",
    ),
    "a name that is exported again keeps its name": (
        f"from {POD} import KubernetesPodOperator\n__all__ = ['KubernetesPodOperator']\n",
        f"{OURS}\n__all__ = ['KubernetesPodOperator']\n",
    ),
    "a task decorator": (
        "from airflow.sdk import task\n\n@task.kubernetes(image='i')  # here\ndef f(): ...\n",
        "from airflow.sdk import task\n\n@task.remote_pod(image='i')  # here\ndef f(): ...\n",
    ),
    "a task decorator of Airflow 2 by another name": (
        "from airflow.decorators import task as t\n@t.kubernetes_cmd(image='i')\ndef f(): ...\n",
        "from airflow.decorators import task as t\n@t.remote_pod_cmd(image='i')\ndef f(): ...\n",
    ),
    "a task decorator through its module": (
        "import airflow.decorators\n@airflow.decorators.task.kubernetes\ndef f(): ...\n",
        "import airflow.decorators\n@airflow.decorators.task.remote_pod\ndef f(): ...\n",
    ),
    "a task decorator that is called": (
        "from airflow.sdk import task\ng = task.kubernetes(image='i')(f).override(task_id='g')\n",
        "from airflow.sdk import task\ng = task.remote_pod(image='i')(f).override(task_id='g')\n",
    ),
    "an operator for Jobs": (
        "from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator\nKubernetesJobOperator()\n",
        "from podbroker.airflow import RemoteJobOperator as KubernetesJobOperator\nKubernetesJobOperator()\n",
    ),
    "an operator for Jobs of Kueue": (
        "from airflow.providers.cncf.kubernetes.operators.kueue import KubernetesStartKueueJobOperator as K\nK()\n",
        "from podbroker.airflow import RemoteStartKueueJobOperator as K\nK()\n",
    ),
    "the function behind a task decorator": (
        "from airflow.providers.cncf.kubernetes.decorators.kubernetes import kubernetes_task\n",
        "from podbroker.airflow.decorators import remote_pod_task as kubernetes_task\n",
    ),
}
SAME = {
    "another task": "task = celery()\n@task.kubernetes\ndef f(): ...\n",
    "another operator": "from airflow.providers.cncf.kubernetes.operators.job import KubernetesDeleteJobOperator\n",
    "another operator of Amazon's": f"from {EKS} import EksCreateClusterOperator\n",
    "the operator of somebody else": "from ours.pods import KubernetesPodOperator\n",
    "a relative import": "from .operators.pod import KubernetesPodOperator\n",
    "a module that is not used": f"import {POD}\n",
    "a name that hides the module": f"import {POD} as p\ndef f(p):\n    return p.KubernetesPodOperator\n",
    "a comment": f"# from {POD} import KubernetesPodOperator\n",
    "a text": f'"""\nfrom {POD} import KubernetesPodOperator\n"""\n',
    "a star": f"from {POD} import *\n",
}


def rewritten(text: str) -> str:
    return analyse(text.encode()).new.decode()


@pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES)
def test_it_is_rewritten_and_a_second_run_changes_nothing(before: str, after: str) -> None:
    assert rewritten(before) == after
    assert rewritten(after) == after


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_it_is_left_alone(text: str) -> None:
    assert rewritten(text) == text


ENDS = {"crlf": "\r\n", "cr": "\r"}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES)
def test_line_ends_stay(before: str, after: str, end: str) -> None:
    old, new = (text.replace("\n", end).encode() for text in (before, after))
    assert analyse(old).new == new


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        (b"\xef\xbb\xbf", "utf-8"),
        (b"# -*- coding: latin-1 -*-\n", "latin-1"),
        (b"#!/usr/bin/python\n# vim: set fileencoding=cp1251 :\n", "cp1251"),
        (b"# coding: euc-jp\n", "euc-jp"),
    ],
    ids=["mark", "latin-1", "cp1251", "euc-jp"],
)
def test_encodings_and_marks_stay(head: bytes, encoding: str) -> None:
    other = {"latin-1": "café", "cp1251": "под", "euc-jp": "日本", "utf-8": "pödchen 日本"}[encoding]
    line = f"x = '{other}'; from {POD} import KubernetesPodOperator  # {other}".encode(encoding)
    assert analyse(head + line).new == head + line.replace(
        f"from {POD} import KubernetesPodOperator".encode(), OURS.encode()
    )


def test_form_feeds_tabs_blanks_and_a_missing_line_end_stay() -> None:
    before = f"x = '\x0c'\n\x0c\nclass A:\n\tdef f(self):\n\x0c\t\tfrom {POD} import KubernetesPodOperator ;  y  =  1  \n \n  # z"
    after = before.replace(f"from {POD} import KubernetesPodOperator", OURS)
    assert rewritten(before) == after


def test_every_way_to_write_an_import_keeps_names_and_comments() -> None:
    """Made-up imports are run before and after, with modules that only say which name was asked of them."""
    dice = random.Random(20261121)
    seen = 0
    for _ in range(80):
        text = made_up_import(dice)
        new = rewritten(text)
        assert sorted(re.findall("#.*", new)) == sorted(re.findall("#.*", text)), (text, new)
        assert rewritten(new) == new, (text, new)
        expected = {
            name: f"{OPERATORS[value].module}.{OPERATORS[value].name}" if value in OPERATORS else value
            for name, value in run(text).items()
        }
        assert run(new) == expected, (text, new)
        seen += expected != run(text)
    assert seen > 40


def made_up_import(dice: random.Random) -> str:
    module = dice.choice(sorted(MODULES))
    own = [name.rpartition(".")[2] for name in OPERATORS if name.rpartition(".")[0] == module]
    names = dice.sample([*own, "A", "Bb", "Ccc"], dice.randint(1, 3 + len(own)))
    names = [f"{name} as {name[0]}_{at}" if dice.random() < 0.3 else name for at, name in enumerate(names)]
    begin = f"from {module} import "
    number = iter(range(100))

    def gap() -> str:
        text = dice.choice([" ", "", "\n    ", " # c{}\n    ", "\n    # l{}\n    ", "  # c{}\n    # l{}\n\n  "])
        return re.sub("{}", lambda _: str(next(number)), text)

    style = dice.choice(["plain", "continued", "parentheses"])
    if style == "plain":
        return begin + ", ".join(names) + dice.choice(["\n", "  # end\n", "; x = 1\n"])
    if style == "continued":
        return begin + ", \\\n  ".join(names) + "\n"
    inner = "".join(f"{name}{dice.choice(['', ' '])},{gap()}" for name in names[:-1])
    last = names[-1] + dice.choice(["", ","]) + gap()
    return f"{begin}({gap()}{inner}{last})\n"


def run(text: str) -> dict[str, str]:
    """Give what each name stands for after the import."""

    class Anything(types.ModuleType):
        def __getattr__(self, name: str) -> str:
            return f"{self.__name__}.{name}"

    modules = {*MODULES, *(new.module for new in OPERATORS.values())}
    packages = {module.rsplit(".", count)[0] for module in modules for count in range(module.count(".") + 1)}
    kept = {name: sys.modules.get(name) for name in packages}
    try:
        for name in packages:
            sys.modules[name] = module = Anything(name)
            module.__path__ = []
        space: dict[str, str] = {}
        exec(text, {}, space)  # noqa: S102 -- what this test has made up
        space.pop("x", None)
        return space
    finally:
        for name, module_before in kept.items():
            sys.modules.pop(name)
            if module_before is not None:
                sys.modules[name] = module_before


def test_every_old_decorator_has_a_new_one() -> None:
    for old, new in DECORATORS.items():
        text = "from airflow.sdk import task\n@task.{}\ndef f(): ...\n"
        assert rewritten(text.format(old)) == text.format(new)
