"""Fake the service that runs programs for the API's routes."""

from tests.support.records import make_result


class FakeJobs:
    """Jobs that echo the request in the result, or raise `error`; `promised` is answered instead."""

    def __init__(self):
        self.orders = []
        self.error = None
        self.promised = None

    def submit(self, order, *, admit):
        admit(runs=1)
        self.orders.append(order)
        if self.error:
            raise self.error
        return self.promised or make_result("0" * 32, stdout=order.request.input, stderr=order.request.code)
