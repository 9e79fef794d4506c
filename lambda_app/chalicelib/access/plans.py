"""List the plans and their limits. For admission, `GET /usage` and the operator's command line."""

from types import MappingProxyType
from typing import Final

from msgspec import Struct

from chalicelib.contract import MAX_BATCH_RUNS, MAX_FILES_BYTES, MAX_INPUT_BYTES, MAX_TIMEOUT_S

READ_BURST_S: Final = 2  # a burst of reads is what the rate allows in this time


class Rate(Struct, frozen=True):
    """A limit of requests per second, and how many may arrive at once after an idle period."""

    per_second: int
    burst: int


class Plan(Struct, frozen=True, kw_only=True):
    """The limits of one plan. The defaults are those of the contract. See docs/decisions/012 for `max_pending_jobs`."""

    name: str
    requests_per_second: int
    burst: int  # requests at once after an idle period
    reads_per_second: int  # requests for usage and jobs; enough to poll every pending job twice per second
    runs_per_month: int  # calendar month, UTC
    max_timeout_s: float = MAX_TIMEOUT_S
    max_input_bytes: int = MAX_INPUT_BYTES
    max_files_bytes: int = MAX_FILES_BYTES  # of all files together
    max_pending_jobs: int
    max_batch_runs: int = MAX_BATCH_RUNS

    @property
    def run_rate(self) -> Rate:
        """Return the rate of requests to run programs."""
        return Rate(self.requests_per_second, self.burst)

    @property
    def read_rate(self) -> Rate:
        """Return the rate of all other requests."""
        return Rate(self.reads_per_second, self.reads_per_second * READ_BURST_S)


PLANS: Final = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            Plan(
                name="free",
                requests_per_second=1,
                burst=5,
                reads_per_second=10,
                runs_per_month=1_000,
                max_timeout_s=3.0,
                max_input_bytes=64 * 1024,
                max_files_bytes=256 * 1024,
                max_pending_jobs=5,
                max_batch_runs=20,
            ),
            Plan(
                name="pro",
                requests_per_second=10,
                burst=20,
                reads_per_second=200,
                runs_per_month=100_000,
                max_pending_jobs=100,
            ),
            Plan(
                name="internal",  # the operator, the demo key, tests and benchmarks
                requests_per_second=100,
                burst=200,
                reads_per_second=500,
                runs_per_month=10_000_000,
                max_pending_jobs=100,
            ),
        )
    }
)
