"""Check commands of the AWS CLI against the models of boto3, and make their calls."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import botocore.session
from botocore import xform_name
from botocore.model import Shape, StructureShape
from botocore.validate import ParamValidator

SERVICES: Final = {"deploy": "codedeploy"}  # whose name in the CLI differs
CLI_OPTIONS: Final = ("--query", "--output", "--region", "--max-items", "--page-size")
CONVERTERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "integer": int,
    "long": int,
    "double": float,
    "boolean": lambda text: {"true": True, "false": False}[text],
}
Client = Any  # boto3 has no types
SESSION: Final = botocore.session.get_session()  # keeps the models that it has read


class AwsCommand:
    """A command: `aws SERVICE OPERATION --option value …`, or `aws SERVICE wait WAITER …`."""

    def __init__(self, arguments: Sequence[str]) -> None:
        name, operation, *rest = arguments
        self.service = SERVICES.get(name, name)
        model = SESSION.get_service_model(self.service)
        self.waiter = rest.pop(0) if operation == "wait" else None
        if self.waiter:
            operation = self._waited_operation(self.waiter)
        names = {xform_name(each, "-"): each for each in model.operation_names}
        assert operation in names, f"aws {name} has no operation {operation}"
        self.operation = xform_name(names[operation])
        shape = model.operation_model(names[operation]).input_shape
        self.parameters = _parameters(rest, shape)
        report = ParamValidator().validate(self.parameters, shape)
        assert not report.has_errors(), f"aws {' '.join(arguments)}: {report.generate_report()}"

    def call(self, clients: Callable[[str], Client]) -> Any:
        """Make the call, or wait, with clients of boto3."""
        client = clients(self.service)
        if self.waiter:
            return client.get_waiter(self.waiter.replace("-", "_")).wait(**self.parameters)
        return getattr(client, self.operation)(**self.parameters)

    def _waited_operation(self, waiter: str) -> str:
        model = SESSION.get_waiter_model(self.service)
        names = {xform_name(each, "-"): each for each in model.waiter_names}
        return str(xform_name(model.get_waiter(names[waiter]).operation, "-"))


def _parameters(arguments: Sequence[str], shape: StructureShape) -> dict[str, Any]:
    members = {f"--{xform_name(name, '-')}": (name, member) for name, member in shape.members.items()}
    parameters = {}
    for option, values in _options(arguments):
        if option in CLI_OPTIONS:
            assert len(values) == 1, option
        elif (positive := option.replace("--no-", "--", 1)) in members and not values:
            name, member = members[positive]
            assert member.type_name == "boolean", f"{option} needs a value"
            parameters[name] = option == positive
        else:
            assert option in members, f"no option {option}"
            name, member = members[option]
            parameters[name] = _value(member, values)
    return parameters


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    starts = [number for number, each in enumerate(arguments) if each.startswith("--")]
    assert not arguments or starts[:1] == [0], arguments
    for start, end in zip(starts, [*starts[1:], len(arguments)], strict=True):
        yield arguments[start], list(arguments[start + 1 : end])


def _value(shape: Shape, values: Sequence[str]) -> Any:
    if shape.type_name == "list":
        return [_value(shape.member, [value]) for value in values]
    (value,) = values
    if value.startswith("{"):
        return json.loads(value)
    if shape.type_name == "structure":
        pairs = (pair.strip().split("=", 1) for pair in value.split(","))
        return {name: _value(shape.members[name], [text]) for name, text in pairs}
    return CONVERTERS.get(shape.type_name, str)(value)
