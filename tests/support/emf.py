"""Extract metrics from log lines as CloudWatch does."""

import json
import time


def parse_emf_line(line: str) -> list[tuple[str, dict[str, str], float]]:
    """Return name, dimensions and value of each metric in a log line that follows the specification.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    root = json.loads(line)
    assert abs(root["_aws"]["Timestamp"] / 1000 - time.time()) < 60
    metrics = []
    for directive in root["_aws"]["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert directive["Namespace"] == "PythonExec"
        for metric in directive["Metrics"]:
            assert set(metric) == {"Name", "Unit"}
            assert metric["Unit"] in {"Count", "Milliseconds"}
            value = root[metric["Name"]]
            assert isinstance(value, int | float)
            for names in directive["Dimensions"]:
                metrics.append((metric["Name"], {name: root[name] for name in names}, value))
                assert all(isinstance(root[name], str) for name in names)
    return metrics
