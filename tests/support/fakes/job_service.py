"""Fake the service that runs programs for the API's routes."""

from chalicelib.access.admission import Admission
from chalicelib.contract import Failure, Result
from chalicelib.jobs.submission import Submission
from chalicelib.jobs.submit import PendingJob
from tests.support.records import make_result


class FakeJobService:
    """A JobService that charges, then echoes the request in the result, returns `outcome`, or raises `error`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.submissions: list[Submission] = []
        self.error: Exception | None = None
        self.outcome: Result | Failure | PendingJob | None = None

    def submit(self, submission: Submission) -> Result | Failure | PendingJob:
        self._admission.charge(submission.caller)
        self.submissions.append(submission)
        if self.error:
            raise self.error
        request = submission.request
        return self.outcome or make_result("0" * 32, stdout=request.input, stderr=request.code)
