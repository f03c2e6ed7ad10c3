"""The shipped files, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "k8s"
PAGE: Final = ROOT / "docs/eks.md"
BATCH_PAGE: Final = ROOT / "docs/batch.md"
#: Every page that names shipped files.
PAGES: Final = (PAGE, ROOT / "docs/archive.md", BATCH_PAGE, ROOT / "docs/jobs.md")
#: Every file that is shipped, by its path under `k8s/`.
NAMES: Final = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file())

Document = dict[str, Any]


def text(name: str) -> str:
    """A file under `k8s/` as it stands."""
    return (FOLDER / name).read_text()


def load(name: str) -> Document:
    """A file under `k8s/`: one document of YAML or JSON, keys given twice refused."""
    if name.endswith(".json"):
        document: Document = json.loads(text(name), object_pairs_hook=_without_twins)
        return document
    (document,) = yaml.load_all(text(name), Loader=_StrictLoader)
    return document


def _without_twins(pairs: list[tuple[str, Any]]) -> Document:
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"a key twice among {keys}"
    return dict(pairs)


class _StrictLoader(yaml.SafeLoader):
    """PyYAML lets the last of two equal keys win; Kubernetes refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Reads a mapping."""
        _without_twins([(self.construct_object(key, deep=deep), None) for key, _ in node.value])
        return super().construct_mapping(node, deep=deep)


def _intrinsic(loader: _StrictLoader, name: str, node: yaml.Node) -> Document:
    """A function of CloudFormation in its short form (`!Ref`), as its long form."""
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    else:
        assert isinstance(node, yaml.SequenceNode), f"not understood: !{name} of a mapping"
        value = loader.construct_sequence(node, deep=True)
    if name == "Ref":
        return {"Ref": value}
    return {f"Fn::{name}": value.split(".", 1) if name == "GetAtt" and isinstance(value, str) else value}


_StrictLoader.add_multi_constructor("!", _intrinsic)
