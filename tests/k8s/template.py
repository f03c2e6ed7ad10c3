"""Reads a CloudFormation template as CloudFormation would, for one choice of parameters, without AWS.

Functions are evaluated, and what they name must be there. What AWS only knows afterwards is a word that says what it
is (`<ComputeEnvironment>`), so that a test can see where it goes. `api_input` puts properties into the words of the API
that CloudFormation calls with them, so that botocore's model can judge them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.model import ListShape, MapShape, StructureShape
from botocore.session import Session

from k8s.shipped import load
from k8s.test_files import ACCOUNT, REGION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botocore.model import OperationModel, Shape

    from k8s.shipped import Document

PSEUDO: Final = {"AWS::AccountId": ACCOUNT, "AWS::Region": REGION, "AWS::Partition": "aws"}
NUMBERS: Final = {"integer": int, "long": int}
SECTIONS: Final = {"AWSTemplateFormatVersion", "Description", "Parameters", "Conditions", "Resources", "Outputs"}

#: The shipped one.
TEMPLATE: Final = load("aws/batch.yaml")
#: What of it has no default, since nobody can guess it.
NODES: Final = {
    "Subnets": "subnet-0a1b2c3d4e5f67890,subnet-09876f5e4d3c2b1a0",
    "SecurityGroups": "sg-0a1b2c3d4e5f67890",
    "InstanceProfile": f"arn:aws:iam::{ACCOUNT}:instance-profile/nodes",
}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A template with parameters: what it would make, and what it tells."""

    resources: Document
    outputs: dict[str, str]

    def __getitem__(self, name: str) -> Document:
        """The properties of a resource."""
        properties: Document = self.resources[name]["Properties"]
        return properties


def deployed(capacity: str = "EC2", events: str = "yes") -> Stack:
    """The shipped template with what the page gives it."""
    return stack(TEMPLATE, {**NODES, "Capacity": capacity, "Events": events})


def stack(template: Document, parameters: Mapping[str, str]) -> Stack:
    """Evaluates a template; parameters without a value take their default."""
    assert set(template) <= SECTIONS
    assert set(parameters) <= set(template["Parameters"])
    values = {name: _value(name, one, parameters) for name, one in template["Parameters"].items()}
    reader = _Reader(values=values, conditions={}, template=template)
    for name, condition in template.get("Conditions", {}).items():
        reader.conditions[name] = reader.read(condition)
    there = {name: one for name, one in template["Resources"].items() if reader.has(one)}
    made = {name: {**one, "Properties": reader.read(one["Properties"])} for name, one in there.items()}
    told = {name: reader.read(one["Value"]) for name, one in template["Outputs"].items() if reader.has(one)}
    assert reader.named <= set(there), f"named, but not there: {reader.named - set(there)}"
    return Stack(resources=made, outputs=told)


def _value(name: str, declared: Document, given: Mapping[str, str]) -> Any:  # noqa: ANN401  text, or a list of it
    value = given.get(name, declared.get("Default"))
    assert isinstance(value, str), f"{name} has no default, or not as text"
    assert value in declared.get("AllowedValues", [value])
    assert re.fullmatch(declared.get("AllowedPattern", ".*"), value), f"{name} refuses {value}"
    return value.split(",") if "List" in declared["Type"] else value


@dataclass(frozen=True, kw_only=True)
class _Reader:
    values: Mapping[str, Any]
    conditions: dict[str, bool]
    template: Document
    #: The resources that functions have named.
    named: set[str] = field(default_factory=set)

    def has(self, one: Document) -> bool:
        return self.conditions[one["Condition"]] if "Condition" in one else True

    def read(self, value: Any) -> Any:  # noqa: ANN401  any part of a template
        if isinstance(value, list):
            return [self.read(one) for one in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref":
                return self.reference(argument)
            if function.startswith("Fn::"):
                return self.call(function, argument)
        return {key: self.read(one) for key, one in value.items()}

    def call(self, function: str, argument: Any) -> Any:  # noqa: ANN401  as above
        match function:
            case "Fn::If":
                return self.read(argument[1] if self.conditions[argument[0]] else argument[2])
            case "Fn::Equals":
                return self.read(argument[0]) == self.read(argument[1])
            case "Fn::GetAtt":
                return f"{self.resource(argument[0])[:-1]}.{argument[1]}>"
            case "Fn::Sub":
                return re.sub(r"\$\{([\w:]+)\}", lambda found: self.reference(found[1]), argument)
        raise AssertionError(f"not understood: {function}")

    def reference(self, name: str) -> Any:  # noqa: ANN401  text, or a list of it
        return self.values[name] if name in self.values else PSEUDO.get(name) or self.resource(name)

    def resource(self, name: str) -> str:
        assert name in self.template["Resources"], f"there is no {name}"
        self.named.add(name)
        return f"<{name}>"


def operation(service: str, name: str) -> OperationModel:
    """A call of the AWS API."""
    return Session().get_service_model(service).operation_model(name)


def api_input(shape: Shape, value: Any) -> Any:  # noqa: ANN401  what the shape says
    """Properties of CloudFormation as the API has them; a name that the API does not have is an error."""
    if isinstance(shape, StructureShape):
        members = {name.lower(): name for name in shape.members}
        for name in value:
            # CloudFormation writes the first letter large, and nothing else differently.
            known = members.get(name.lower(), "")
            assert known[:1].upper() + known[1:] == name, f"{shape.name} has no {name}"
        named = {members[name.lower()]: one for name, one in value.items()}
        return {name: api_input(shape.members[name], one) for name, one in named.items()}
    if isinstance(shape, ListShape):
        assert isinstance(value, list)
        return [api_input(shape.member, one) for one in value]
    if isinstance(shape, MapShape):
        return {name: api_input(shape.value, one) for name, one in value.items()}
    if enum := getattr(shape, "enum", None):
        assert value in enum, f"{shape.name} is one of {enum}, not {value}"
    if shape.type_name == "string" and isinstance(value, dict):
        return json.dumps(value)
    return NUMBERS.get(shape.type_name, lambda one: one)(value)
