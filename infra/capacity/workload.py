"""The load whose costs costs.py calculates: how many runs there are, and what each of them is."""

from msgspec import Struct


class Workload(Struct, frozen=True, kw_only=True):
    """Runs at a constant rate, all alike."""

    runs_per_hour: float
    runtime: str = "python"
    program_s: float = 0.02  # how long a program takes
    program_cpu_s: float = 0.02  # of which it uses the CPU
    runs_per_job: int = 1  # more than one in a batch
    is_async: bool = False  # with Prefer: respond-async; its caller then polls
    has_payloads: bool = False  # more than 256 KiB in each direction, through S3

    @property
    def jobs_per_hour(self) -> float:
        """Return the number of jobs, which in batches have several runs each."""
        return self.runs_per_hour / self.runs_per_job

    @property
    def job_s(self) -> float:
        """Return how long a job takes."""
        return self.program_s * self.runs_per_job
