"""The quotas that an AWS account needs for a stack of some sizes. Nothing here calls AWS."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from infra.capacity.sizing import parse_number, vcpus

STORE_RESULTS_CONCURRENCY: Final = 10  # reserved in infra/template.yaml
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
UNRESERVED_CONCURRENCY: Final = 100  # that Lambda does not let functions reserve


class Quota(Struct, frozen=True, kw_only=True):
    """A quota by its codes in Service Quotas, and what a stack needs of it."""

    name: str
    service: str
    code: str
    to_start: float  # without it, the creation of the stack fails or no job runs
    at_peak: float


def needed_quotas(parameters: Mapping[str, str | int], *, instance_type: str) -> list[Quota]:
    """Return what a stack with these parameters needs, besides what the account already uses. Raises CommandError."""
    names = ("MinHosts", "MaxHosts", "OnDemandHosts", "ApiConcurrency", "ThrottleRate")
    min_hosts, max_hosts, on_demand, concurrency, rate = (parse_number(name, parameters[name]) for name in names)
    size = vcpus(instance_type)
    reserved = concurrency + STORE_RESULTS_CONCURRENCY + UNRESERVED_CONCURRENCY
    return [
        Quota(
            name="EC2: Running On-Demand Standard instances (vCPUs)",
            service="ec2",
            code="L-1216C47A",
            to_start=size * min(on_demand, min_hosts),
            at_peak=size * min(on_demand, max_hosts),
        ),
        Quota(
            name="EC2: All Standard Spot Instance Requests (vCPUs)",
            service="ec2",
            code="L-34B43A08",
            to_start=size * max(0, min_hosts - on_demand),
            at_peak=size * max(0, max_hosts - on_demand),
        ),
        Quota(
            name="Lambda: concurrent executions",
            service="lambda",
            code="L-B99A9384",
            to_start=reserved,
            at_peak=reserved,
        ),
        Quota(
            name="API Gateway: requests per second of the region",
            service="apigateway",
            code="L-8A5B8E43",
            to_start=0,
            at_peak=rate,
        ),
    ]
