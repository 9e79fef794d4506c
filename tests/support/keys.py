"""Create API keys in the tables of a stack, and use up what their plans allow."""

import time
from collections.abc import Callable, Mapping

from chalicelib.access import api_keys
from chalicelib.access.api_keys import new_key
from chalicelib.access.key_table import PARTITION_KEY
from chalicelib.access.plans import PLANS
from chalicelib.access.rate_limits import SECOND_US, max_tat_us
from chalicelib.dynamodb import to_value
from infra.env_file import client
from infra.operator.key_admin import KeyAdmin


def key_creator(environment: Mapping[str, str], *, owner: str) -> Callable[[str], str]:
    """Return a function that creates a key of a plan and returns it as text."""
    store = KeyAdmin(client("dynamodb", environment), table=environment["KEYS_TABLE"])

    def create(plan: str) -> str:
        key = new_key()
        store.create(key, plan=plan, owner=owner, now_s=int(time.time()))
        return str(key)

    return create


FAR_MONTH = 209901  # the API counts in the month of a key that is ahead of its clock


def exhaust_rate(environment: Mapping[str, str], api_key: str, *, plan: str, wait_s: float) -> None:
    """Make the API refuse programs of a key for `wait_s`, as after too many requests."""
    tat_us = max_tat_us(PLANS[plan].run_rate, time.time_ns() // 1000) + int(wait_s * SECOND_US)
    _update(environment, api_key, tat_us=tat_us)


def exhaust_quota(environment: Mapping[str, str], api_key: str, *, plan: str) -> None:
    """Use up the runs of a key until the end of FAR_MONTH."""
    _update(environment, api_key, month=FAR_MONTH, runs=PLANS[plan].runs_per_month)


def _update(environment: Mapping[str, str], api_key: str, **values: int) -> None:
    key = api_keys.parse(api_key)
    assert key is not None
    client("dynamodb", environment).update_item(
        TableName=environment["KEYS_TABLE"],
        Key={PARTITION_KEY: to_value(key.key_id)},
        UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values),
        ExpressionAttributeNames={f"#{name}": name for name in values},
        ExpressionAttributeValues={f":{name}": to_value(value) for name, value in values.items()},
    )
