"""Create API keys in the tables of a stack."""

import time
from collections.abc import Callable, Mapping

from chalicelib.access.api_keys import new_key
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
