"""The charge of one request to run code."""

from msgspec import Struct

from chalicelib.access.admission import Admission, Caller


class Charge(Struct):
    """A charge that is paid once, and not again if it is rejected."""

    admission: Admission
    caller: Caller
    is_charged: bool = False

    def pay(self, *, runs: int) -> None:
        """Charge the request to the rate and the quota of its key. Raise ProblemError if one is used up."""
        self.is_charged = True
        self.admission.charge(self.caller, runs=runs)
