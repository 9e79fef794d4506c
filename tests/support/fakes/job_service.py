"""Fake the service that runs programs for the API's routes."""

from tests.support.records import make_result


class FakeJobService:
    """A JobService that charges, then echoes the request in the result, returns `outcome`, or raises `error`."""

    def __init__(self, admission):
        self._admission = admission
        self.submissions = []
        self.error = None
        self.outcome = None

    def submit(self, submission):
        self._admission.charge(submission.caller)
        self.submissions.append(submission)
        if self.error:
            raise self.error
        request = submission.request
        return self.outcome or make_result("0" * 32, stdout=request.input, stderr=request.code)
