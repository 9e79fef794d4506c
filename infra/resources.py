"""Create the queues, tables and the bucket of infra/template.yaml without CloudFormation.

For the local stack, and for services that are compatible with SQS, DynamoDB and S3 (`python-exec create-resources`).
Repeating it changes nothing.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from botocore.exceptions import ClientError

from infra import template

STACK: Final = "python-exec"  # prefix of the names of resources; app.py has those of the queues of its handlers
QUEUES: Final = {
    "JOB_QUEUE_URL": "JobQueue",
    "DATA_JOB_QUEUE_URL": "DataJobQueue",
    "RESULTS_QUEUE_URL": "ResultsQueue",
    "WEBHOOK_QUEUE_URL": "WebhookQueue",
}
TABLES: Final = {"KEYS_TABLE": "KeysTable", "JOBS_TABLE": "JobsTable"}
QUEUE_ATTRIBUTES: Final = ("VisibilityTimeout", "MessageRetentionPeriod")
TABLE_OPTIONS: Final = ("BillingMode", "AttributeDefinitions", "KeySchema")
_EXISTS_CODES: Final = ("ResourceInUseException", "BucketAlreadyOwnedByYou")


def create_resources(clients: Callable[[str], Any], *, stack: str = STACK) -> dict[str, str]:
    """Create everything that does not exist and return the settings of the API and of agents that name it."""
    resources = template.local_resources()
    urls = _create_queues(clients("sqs"), template.properties_of(resources, "AWS::SQS::Queue"), stack=stack)
    dynamodb, tables = clients("dynamodb"), template.properties_of(resources, "AWS::DynamoDB::Table")
    names = {logical_id: _name(table["TableName"], stack) for logical_id, table in tables.items()}
    for logical_id, table in tables.items():
        _create_table(dynamodb, names[logical_id], table)
    s3, bucket = clients("s3"), f"{stack}-payloads"
    _unless_it_exists(s3.create_bucket, Bucket=bucket)
    (properties,) = template.properties_of(resources, "AWS::S3::Bucket").values()
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": _lifecycle(properties)})
    return {
        **{setting: urls[logical_id] for setting, logical_id in QUEUES.items()},
        **{setting: names[logical_id] for setting, logical_id in TABLES.items()},
        "PAYLOAD_STORE_URL": f"{s3.meta.endpoint_url}/{bucket}",
    }


def _name(value: dict[str, str], stack: str) -> str:
    return value["Fn::Sub"].replace("${AWS::StackName}", stack)


def _create_queues(sqs: Any, queues: dict[str, dict[str, Any]], *, stack: str) -> dict[str, str]:  # noqa: ANN401
    """Create the queues, dead-letter queues first, and return the URL of each."""
    urls: dict[str, str] = {}
    for logical_id, queue in sorted(queues.items(), key=lambda item: "RedrivePolicy" in item[1]):
        attributes: dict[str, str] = {name: str(queue[name]) for name in QUEUE_ATTRIBUTES if name in queue}
        if redrive := queue.get("RedrivePolicy"):
            dead_letter_queue = urls[redrive["deadLetterTargetArn"]["Fn::GetAtt"][0]]
            described = sqs.get_queue_attributes(QueueUrl=dead_letter_queue, AttributeNames=["QueueArn"])
            target = {**redrive, "deadLetterTargetArn": described["Attributes"]["QueueArn"]}
            attributes["RedrivePolicy"] = json.dumps(target)
        name = _name(queue["QueueName"], stack)
        urls[logical_id] = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return urls


def _create_table(dynamodb: Any, name: str, table: dict[str, Any]) -> None:  # noqa: ANN401 - boto3's client
    options = {option: table[option] for option in TABLE_OPTIONS}
    _unless_it_exists(dynamodb.create_table, TableName=name, **options)
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def _lifecycle(bucket: dict[str, Any]) -> list[dict[str, Any]]:
    rules = bucket["LifecycleConfiguration"]["Rules"]
    return [
        {
            "ID": rule["Id"],
            "Status": rule["Status"],
            "Filter": {"Prefix": ""},
            "Expiration": {"Days": rule["ExpirationInDays"]},
            "AbortIncompleteMultipartUpload": rule["AbortIncompleteMultipartUpload"],
        }
        for rule in rules
    ]


def _unless_it_exists(create: Callable[..., object], **arguments: object) -> None:
    try:
        create(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _EXISTS_CODES:
            raise
