"""Evaluate an alarm of the template on series of data points, as CloudWatch documents it.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

Value = float | None  # of one period; None if there is no data
Series = Sequence[Value]

COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
}
OPERATORS: Final[Mapping[type, Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Gt: operator.gt,
    ast.Lt: operator.lt,
}


def fires(alarm: Mapping[str, Any], data: Mapping[str, Series]) -> bool:
    """Return whether the periods in `data`, the latest last, put an alarm into the state ALARM.

    The keys of `data` are the ids of the alarm's metrics, or the name of its only metric.
    """
    periods = alarm["EvaluationPeriods"]
    values = _values(alarm, {name: list(series)[-periods:] for name, series in data.items()})
    assert len(values) == periods
    compare, threshold = COMPARISONS[alarm["ComparisonOperator"]], alarm["Threshold"]
    missing_is_breaching = {"breaching": True, "notBreaching": False}[alarm["TreatMissingData"]]
    breaching = [missing_is_breaching if value is None else compare(value, threshold) for value in values]
    return sum(breaching) >= int(alarm.get("DatapointsToAlarm", periods))


def metric_ids(alarm: Mapping[str, Any]) -> set[str]:
    """Return the ids of an alarm's metrics, or the name of its only metric."""
    if "MetricName" in alarm:
        return {alarm["MetricName"]}
    return {metric["Id"] for metric in alarm["Metrics"] if "MetricStat" in metric}


def _values(alarm: Mapping[str, Any], data: Mapping[str, Series]) -> Series:
    assert set(data) == metric_ids(alarm)
    if "MetricName" in alarm:
        return data[alarm["MetricName"]]
    (text,) = [
        metric["Expression"] for metric in alarm["Metrics"] if metric.get("ReturnData") and "Expression" in metric
    ]
    expression = ast.parse(text.replace(" OR ", " or "), mode="eval").body
    return [_evaluate(expression, dict(zip(data, row, strict=True))) for row in zip(*data.values(), strict=True)]


def _evaluate(node: ast.expr, row: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            return row[name]
        case ast.BinOp(left=left, op=op, right=right) | ast.Compare(left=left, ops=[op], comparators=[right]):
            return _combine(OPERATORS[type(op)], _evaluate(left, row), _evaluate(right, row))
        case ast.BoolOp(op=ast.Or(), values=[left, right]):
            return _combine(lambda a, b: a or b, _evaluate(left, row), _evaluate(right, row))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return _call(function, arguments, row)
    raise NotImplementedError(ast.unparse(node))


def _call(function: str, arguments: Sequence[ast.expr], row: Mapping[str, Value]) -> Value:
    match function, arguments:
        case "FILL", [value, default]:
            filled = _evaluate(value, row)
            return _evaluate(default, row) if filled is None else filled
        case "IF", [condition, then, otherwise]:
            is_true = _evaluate(condition, row)
            return None if is_true is None else _evaluate(then if is_true else otherwise, row)
        case "SUM" | "MAX", [ast.List(elts=elements)]:
            values = [value for value in (_evaluate(element, row) for element in elements) if value is not None]
            return (sum(values) if function == "SUM" else max(values)) if values else None
    raise NotImplementedError(function)


def _combine(function: Callable[[float, float], float], left: Value, right: Value) -> Value:
    if left is None or right is None:
        return None
    try:
        return float(function(left, right))
    except ZeroDivisionError:  # CloudWatch then has no data point
        return None
