"""Compare the quotas of an AWS account with what a stack needs, before anything is created.

`python-exec preflight` and `make deploy` run it. It needs the permission servicequotas:GetServiceQuota.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from botocore.exceptions import ClientError
from msgspec import Struct

from infra.capacity.quotas import Quota
from infra.errors import CommandError
from infra.operator.text_table import text_table

UNKNOWN: Final = "unknown"
_HEADER: Final = ("quota", "code", "to start", "at peak", "account", "result")


class QuotaStatus(Struct, frozen=True):
    """A quota and its value in the account, None if Service Quotas does not know it or may not be asked."""

    quota: Quota
    value: float | None

    @property
    def blocks(self) -> bool:
        """Return whether the stack cannot start."""
        return self.value is not None and self.value < self.quota.to_start

    @property
    def result(self) -> str:
        """Return what an operator has to do."""
        if self.value is None:
            return "look it up in the console"
        if self.blocks:
            return "too low: request an increase first"
        return "request an increase" if self.value < self.quota.at_peak else "ok"


def read_quotas(clients: Callable[[str], Any], needed: Sequence[Quota]) -> list[QuotaStatus]:
    """Return the value of each quota in the account and region of the clients."""
    service_quotas = clients("service-quotas")

    def value(quota: Quota) -> float | None:
        try:
            response = service_quotas.get_service_quota(ServiceCode=quota.service, QuotaCode=quota.code)
        except ClientError:
            return None
        return float(response["Quota"]["Value"])

    return [QuotaStatus(quota, value(quota)) for quota in needed]


def require_quotas(statuses: Sequence[QuotaStatus]) -> None:
    """Raise CommandError if the stack cannot start."""
    if blocking := [status.quota for status in statuses if status.blocks]:
        codes = ", ".join(f"{quota.name} ({quota.code})" for quota in blocking)
        raise CommandError(f"The quotas of this account are too low: {codes}. Request increases in Service Quotas.")


def table(statuses: Sequence[QuotaStatus]) -> str:
    """Return the quotas as a table in plain text."""
    rows = [
        (
            status.quota.name,
            status.quota.code,
            f"{status.quota.to_start:g}",
            f"{status.quota.at_peak:g}",
            UNKNOWN if status.value is None else f"{status.value:g}",
            status.result,
        )
        for status in statuses
    ]
    return text_table([_HEADER, *rows])
