"""Describes the bodies of responses for the OpenAPI document, as far as no type of the code that builds them does."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from chalicelib.contract import IsolationState, Result
from chalicelib.jobs.batch_view import BatchView
from chalicelib.jobs.job_table import WebhookState
from chalicelib.problems import Problem


class PendingJob(Struct, kw_only=True):
    """A job that has no result yet."""

    id: str
    status: Literal["pending"]


class Webhook(Struct, kw_only=True):
    """The delivery of a job's result to its `callback_url`."""

    state: WebhookState
    attempts: Annotated[int, Meta(ge=0)]
    error: str | None


class PendingStoredJob(PendingJob, kw_only=True):
    """An accepted job that has no result yet; with its `webhook` if it has a `callback_url`."""

    webhook: Webhook | UnsetType = UNSET


class StoredResult(Result, kw_only=True, frozen=True, tag="stored_result"):
    """The result of an accepted job; with its `webhook` if it has a `callback_url`."""

    webhook: Webhook | UnsetType = UNSET


class StoredBatch(BatchView, kw_only=True, frozen=True):
    """The result of an accepted batch; with its `webhook` if it has a `callback_url`."""

    webhook: Webhook | UnsetType = UNSET


class FailedJob(Struct, kw_only=True):
    """A job that has no result and will have none. Never caused by the program."""

    id: str
    status: Literal["failed"]
    problem: Problem


class FailedStoredJob(FailedJob, kw_only=True):
    """An accepted job that has no result and will have none; with its `webhook` if it has a `callback_url`."""

    webhook: Webhook | UnsetType = UNSET


class QueueDepth(Struct, kw_only=True):
    """The jobs in the queue of a runtime."""

    waiting: Annotated[int, Meta(ge=0)]
    running: Annotated[int, Meta(ge=0)]


class Sandboxes(Struct, kw_only=True):
    """The warm sandboxes of a runtime on a host that wait for a job, and those that run one."""

    ready: Annotated[int, Meta(ge=0)]
    running: Annotated[int, Meta(ge=0)]


class Host(Struct, kw_only=True):
    """A host that reported within the last minute, with its sandboxes by runtime."""

    name: str
    version: str
    runtimes: dict[str, Sandboxes]
    isolation: IsolationState


class HealthReport(Struct, kw_only=True):
    """The state of the service. Only an operator's key gets the queue and the hosts."""

    status: Literal["ok", "no_hosts"]
    jobs: dict[str, QueueDepth] | UnsetType = UNSET
    hosts: list[Host] | UnsetType = UNSET


class RuntimeDescription(Struct, kw_only=True):
    """A runtime: its packages and their versions, the modules imported in advance, and the limits of a program."""

    name: str
    python_version: str
    packages: dict[str, str]
    preloaded: list[str]
    limits: dict[str, float]  # of each program, whatever the plan


class RuntimeList(Struct, kw_only=True):
    """The runtimes in which programs can run."""

    runtimes: list[RuntimeDescription]


class RpcError(Struct, kw_only=True):
    """An error of JSON-RPC."""

    code: int
    message: str
    data: dict[str, Any] | UnsetType = UNSET


class RpcAnswer(Struct, kw_only=True):
    """The answer to a message of the Model Context Protocol: a result or an error."""

    jsonrpc: Literal["2.0"]
    id: str | int | None
    result: dict[str, Any] | UnsetType = UNSET
    error: RpcError | UnsetType = UNSET
