"""List the plans and their limits. For admission, `GET /usage` and the operator's command line."""

from types import MappingProxyType
from typing import Final

from msgspec import Struct

from chalicelib.contract import MAX_INPUT_BYTES, MAX_TIMEOUT_S


class Plan(Struct, frozen=True, kw_only=True):
    """The limits of one plan. See docs/decisions/012 for `max_pending_jobs`."""

    name: str
    requests_per_second: int
    burst: int  # requests at once after an idle period
    runs_per_month: int  # calendar month, UTC
    max_timeout_s: float
    max_input_bytes: int
    max_pending_jobs: int


PLANS: Final = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            Plan(
                name="free",
                requests_per_second=1,
                burst=5,
                runs_per_month=1_000,
                max_timeout_s=3.0,
                max_input_bytes=64 * 1024,
                max_pending_jobs=5,
            ),
            Plan(
                name="pro",
                requests_per_second=10,
                burst=20,
                runs_per_month=100_000,
                max_timeout_s=MAX_TIMEOUT_S,
                max_input_bytes=MAX_INPUT_BYTES,
                max_pending_jobs=100,
            ),
            Plan(
                name="internal",  # the operator, the demo key, tests and benchmarks
                requests_per_second=100,
                burst=200,
                runs_per_month=10_000_000,
                max_timeout_s=MAX_TIMEOUT_S,
                max_input_bytes=MAX_INPUT_BYTES,
                max_pending_jobs=100,
            ),
        )
    }
)
