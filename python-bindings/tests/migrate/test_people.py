"""What is said to people, and where."""

from __future__ import annotations

import pytest

from podbroker.migrate.analysis import Report, analyse
from podbroker.migrate.finding import Level

POD = "airflow.providers.cncf.kubernetes.operators.pod"
IMPORT = f"from {POD} import KubernetesPodOperator as K\n"
EKS = "from airflow.providers.amazon.aws.operators.eks import EksPodOperator as E\n"
TASK = "from airflow.sdk import task\n"

PERSON = {
    "a star": (f"from {POD} import *\n", "1:1 star-import"),
    "a module by its text": (f"m = import_module('{POD}')\n", "1:19 name-in-text"),
    "a class by its text": (f"with patch('{POD}.KubernetesPodOperator.execute'): pass\n", "1:12 name-in-text"),
    "a text with a value in it": (f"m = import_module(f'{POD}.{{x}}')\n", "1:21 name-in-text"),
    "a module that is handed on": (f"import {POD} as p\nf(p)\n", "2:3 module-as-value"),
    "a module that may be another": (
        f"try:\n  import {POD} as p\nexcept ImportError:\n  p = None\nx = p.KubernetesPodOperator\n",
        "5:5 ambiguous",
        "5:5 operator-as-value",
    ),
    "in_cluster": (IMPORT + "K(\n    in_cluster=flag,\n)\n", "3:5 argument-without-effect"),
    "config_file": (IMPORT + "K(config_file='/k')\n", "2:3 argument-without-effect"),
    "cluster_context": (IMPORT + "K(cluster_context='c')\n", "2:3 argument-without-effect"),
    "kubernetes_conn_id": (IMPORT + "K(kubernetes_conn_id='c')\n", "2:3 argument-without-effect"),
    "callbacks": (IMPORT + "K(callbacks=Mine)\n", "2:3 callbacks"),
    "arguments from elsewhere": (IMPORT + "K(**more)\n", "2:3 hidden-arguments"),
    "the first half of a mapped task": (
        IMPORT + "K.partial(in_cluster=True).expand(x=[1])\n",
        "2:11 argument-without-effect",
    ),
    "the other half of a mapped task": (
        IMPORT + "K.partial(x=1).expand(config_file=[1])\n",
        "2:23 argument-without-effect",
    ),
    "arguments of a mapped task from elsewhere": (
        IMPORT + "K.partial(x=1).expand_kwargs(**l)\n",
        "2:30 hidden-arguments",
    ),
    "default arguments": (IMPORT + "d = {'in_cluster': True, 'owner': 'me'}\nK(image='i')\n", "2:6 argument-in-dict"),
    "default arguments of a call": (
        IMPORT + "d = dict(config_file='k', owner='me')\nK(image='i')\n",
        "2:10 argument-in-dict",
    ),
    "default arguments beside a subclass": (
        IMPORT + "d = dict(cluster_context='c')\nclass Mine(K): ...\n",
        "2:10 argument-in-dict",
        "3:1 subclass",
    ),
    "default arguments that are exported": (
        IMPORT + "__all__ = ['K', 'D', 'E']\nD = {'in_cluster': True}\nE = dict(kubernetes_conn_id='c')\n",
        "3:6 argument-in-dict",
        "4:10 argument-in-dict",
    ),
    "default arguments beside a module": (
        f"import {POD} as p\nd = dict(config_file='k')\ndef f(x: p.KubernetesPodOperator): ...\n",
        "2:10 argument-in-dict",
    ),
    "a partial call": (
        IMPORT + "f = partial(K, in_cluster=True, config_file='x')\n",
        "2:13 operator-as-value",
    ),
    "another name": (IMPORT + "Pod = K\nPod(in_cluster=True)\n", "2:7 operator-as-value"),
    "another name by a module": (
        f"import {POD} as p\nPod = p.KubernetesPodOperator\n",
        "2:7 operator-as-value",
    ),
    "a table of operators": (
        EKS + "table = {'eks': E, 'both': [E]}\n",
        "2:17 operator-as-value",
        "2:29 operator-as-value",
    ),
    "an operator that is given back": (IMPORT + "def f():\n  return K\n", "3:10 operator-as-value"),
    "an operator by default": (IMPORT + "def f(c=K): c()\n", "2:9 operator-as-value"),
    "a part of a mapped task": (IMPORT + "f = K.partial\n", "2:5 operator-as-value"),
    "a task decorator with another name": (TASK + "pod = task.kubernetes\n", "2:7 operator-as-value"),
    "a decorator of one's own module": (
        "from ours.dags import task\n@task.kubernetes(in_cluster=True)\ndef f(): ...\n",
        "2:2 unknown-decorator",
    ),
    "a command's decorator through a module": (
        "import ours\n@ours.task.kubernetes_cmd\ndef f(): ...\n",
        "2:2 unknown-decorator",
    ),
    "a decorator of a neighbour with another name": (
        "from .common import task as t\n@t.kubernetes(image='i')\ndef f(): ...\n",
        "2:2 unknown-decorator",
    ),
    "a decorator by a star": (
        "from airflow.decorators import *\n@task.kubernetes(image='i')\ndef f(): ...\n",
        "2:2 unknown-decorator",
    ),
    "a decorator that the file makes": (
        "import ours\ntask = ours.decorators()\n@task.kubernetes(image='i')\ndef f(): ...\n",
        "3:2 unknown-decorator",
    ),
    "a decorator's argument": (
        TASK + "@task.kubernetes(in_cluster=True)\ndef f(): ...\n",
        "2:18 argument-without-effect",
    ),
    "amazon's config_file": (EKS + "E(config_file='k')\n", "2:3 refused-argument"),
    "amazon's aws_profile": (EKS + "E(aws_profile='k')\n", "2:3 refused-argument"),
    "a subclass": (IMPORT + "class Mine(K): ...\n", "2:1 subclass"),
    "what it overrides": (IMPORT + "class Mine(K):\n  def cleanup(self): ...\n", "2:1 subclass", "3:3 override"),
    "a property that it overrides": (
        IMPORT + "class Mine(K):\n  @cached_property\n  def hook(self): ...\n",
        "2:1 subclass",
        "4:3 override",
    ),
    "what it uses": (
        IMPORT + "class Mine(K):\n  def f(self): self.pod_manager.g()\n",
        "2:1 subclass",
        "3:16 attribute",
    ),
    "the client of an operator": (IMPORT + "t = K(image='i')\nt.client.x\n", "3:1 attribute"),
}
NOTES = {
    "polling": (
        IMPORT + "K(poll_interval=1, logging_interval=3)\n",
        "2:3 argument-without-effect",
        "2:20 argument-without-effect",
    ),
    "what becomes of the pod": (IMPORT + "K(on_finish_action='delete_active_pod')\n", "2:3 finish-action"),
    "the target of a cluster": (EKS + "E(cluster_name='c')\n", "2:1 eks-target"),
    "an operator that stays": (
        "from airflow.providers.cncf.kubernetes.operators.job import KubernetesPatchJobOperator\n",
        "1:61 not-migrated",
    ),
    "an operator of one's own module": ("from ours import KubernetesPodOperator\n", "1:18 imported-from-elsewhere"),
    "an import that is tried": (f"try:\n  {IMPORT}except ImportError: ...\n", "2:63 tried-import"),
}
NOTHING = {
    "what says nothing": IMPORT + "K(deferrable=True, in_cluster=None, config_file=None)\n",
    "a docstring": f'def f():\n    """Like {POD}."""\n',
    "another class's client": IMPORT + "K(image='i')\nclass A:\n  def f(self): self.client.x\n",
    "a dictionary without an operator": "from airflow.providers.cncf.kubernetes.secret import Secret\nd = {'in_cluster': True}\n",
    "what only asks for the class": IMPORT
    + "def f(x: K, y: 'K') -> list[K | None]:\n  z: K = x\n  if isinstance(x, (str, K)) or type(x) is K: pass\n  return K.template_fields\n",
    "a type of its own": IMPORT + "Pods = dict[str, K]\nt = cast(K, x)\n",
    "an export": IMPORT + "__all__ = ['K']\n",
    "a function named dict": IMPORT + "from ours import dict\nd = dict(in_cluster=True)\n",
    "a class of the file with such a method": "class Registry: ...\nr = Registry()\n@r.kubernetes\ndef f(): ...\n"
    "@Registry.kubernetes('x')\ndef g(): ...\n",
    "a class of the file that is named task": "class task: ...\n@task.kubernetes\ndef f(): ...\n",
    "a mark of pytest": "import pytest\n@pytest.mark.kubernetes\ndef f(): ...\n",
    "another method of an own task": "from ours import task\n@task.docker\ndef f(): ...\nx.kubernetes\n",
    "execute, which works as upstream's": IMPORT,
}


def found(report: Report, *levels: Level) -> list[str]:
    return [f"{p.before[0]}:{p.before[1]} {p.finding.code}" for p in report.places if p.finding.level in levels]


@pytest.mark.parametrize("case", PERSON.values(), ids=PERSON)
def test_a_person_has_to_look(case):
    text, *expected = case
    assert found(analyse(text.encode()), Level.PERSON) == expected


@pytest.mark.parametrize("case", NOTES.values(), ids=NOTES)
def test_a_note_is_made(case):
    text, *expected = case
    report = analyse(text.encode())
    assert found(report, Level.NOTE) == expected
    assert found(report, Level.PERSON) == []


@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING)
def test_nothing_is_said(text):
    assert found(analyse(text.encode()), *Level) == []


# A module that is handed on is not rewritten, and what is said of it names the old one.
REWRITTEN = {name: case for name, case in (PERSON | NOTES).items() if name != "a module that is handed on"}


@pytest.mark.parametrize("case", REWRITTEN.values(), ids=REWRITTEN)
def test_what_is_said_holds_for_the_rewritten_file_too_with_its_own_places(case):
    first = analyse(case[0].encode())
    second = analyse(first.new)
    assert not second.is_changed
    expected = [(place.after, place.finding.code) for place in first.places]
    assert [(place.before, place.finding.code) for place in second.places] == expected


def test_the_target_that_a_cluster_needs_is_told():
    text = EKS + "E(cluster_name='c', region=R, aws_conn_id='aws_eks')\n"
    (place,) = analyse(text.encode()).places
    assert place.finding.message == (
        "the broker needs one target that fits: cluster 'c', region R, namespace 'default',"
        " role of the connection 'aws_eks'"
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("K(image='i')\nK(image='j')\n", 2),
        ("K(image='i', target='t')\n", 0),
        ("K(**more)\n", 0),
        ("K.partial(image='i', target='t').expand(x=[1])\n", 0),
        ("@task.kubernetes(image='i')\ndef f(): ...\n", 1),
        ("@task.kubernetes\ndef f(): ...\n", 1),
    ],
)
def test_tasks_without_a_target_are_counted(text, count):
    assert analyse((IMPORT + TASK + text).encode()).without_target == count


def test_places_move_with_the_lines_that_are_put_before_them():
    text = f"from {POD} import (\n    A,\n    KubernetesPodOperator,\n)\nKubernetesPodOperator(in_cluster=True)\n"
    (place,) = analyse(text.encode()).places
    assert (place.before, place.after) == ((5, 23), (5, 23))
    text = f"from {POD} import A, KubernetesPodOperator\nKubernetesPodOperator(in_cluster=True)\n"
    (place,) = analyse(text.encode()).places
    assert (place.before, place.after) == ((2, 23), (3, 23))
