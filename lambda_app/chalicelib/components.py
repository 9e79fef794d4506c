"""Everything that the routes and handlers work with, made of the settings. For app.py."""

from typing import Final

import boto3
from botocore.config import Config
from msgspec import Struct

from chalicelib.access.admission import Admission
from chalicelib.access.key_table import KeyTable
from chalicelib.access.load_shedding import LoadShedder
from chalicelib.fleet.health import Health
from chalicelib.fleet.host_registry import HostRegistry
from chalicelib.jobs.dispatcher import Dispatcher
from chalicelib.jobs.job_results import Results
from chalicelib.jobs.job_table import JobTable
from chalicelib.jobs.pending_jobs import WaitingJobs
from chalicelib.jobs.reply_queue import LONG_POLL_S, ReplyQueue
from chalicelib.jobs.reply_queue_cleanup import Housekeeping
from chalicelib.jobs.submit import Jobs
from chalicelib.settings import Settings
from chalicelib.webhooks.client import WebhookClient
from chalicelib.webhooks.delivery import WebhookDelivery

CALLS: Final = Config(
    connect_timeout=1,
    read_timeout=3,  # of the time in which somebody waits for a result
    retries={"mode": "standard", "total_max_attempts": 2},  # the gateway gives up after 29 s
    max_pool_connections=128,  # chalice local answers each connection in a thread of its own
    tcp_keepalive=True,
)
POLLS: Final = CALLS.merge(Config(read_timeout=LONG_POLL_S + 5))


class Service(Struct, frozen=True, kw_only=True):
    """One of each in a process."""

    admission: Admission
    load_shedder: LoadShedder
    jobs: Jobs
    results: Results
    replies: ReplyQueue
    webhooks: WebhookDelivery
    housekeeping: Housekeeping
    hosts: HostRegistry
    health: Health
    default_wait_s: float
    allow_local_webhooks: bool


def service(told: Settings) -> Service:
    """Makes no call yet."""
    sqs, polls = boto3.client("sqs", config=CALLS), boto3.client("sqs", config=POLLS)
    dynamodb = boto3.client("dynamodb", config=CALLS)
    keys, table = KeyTable(dynamodb, name=told.keys_table), JobTable(dynamodb, name=told.jobs_table)
    waiting = WaitingJobs(dynamodb, name=told.jobs_table)
    webhooks = WebhookDelivery(
        sqs,
        queue_url=told.webhook_queue_url,
        jobs=table,
        keys=keys,
        client=WebhookClient(allow_local=told.allow_local_webhooks),
    )
    results = Results(table, waiting=waiting, webhooks=webhooks)
    replies = ReplyQueue(sqs, polls=polls, prefix=told.reply_queue_prefix, settle_late=results.settle)
    dispatcher = Dispatcher(sqs, job_queue_url=told.job_queue_url, replies=replies)
    hosts = HostRegistry(dynamodb, table=told.jobs_table)
    return Service(
        admission=Admission(keys),
        load_shedder=LoadShedder(sqs, job_queue_url=told.job_queue_url, max_depth=told.max_queue_depth),
        jobs=Jobs(
            table, hosts=dispatcher, waiting=waiting, results=results, result_retention_s=told.result_retention_s
        ),
        results=results,
        replies=replies,
        webhooks=webhooks,
        housekeeping=Housekeeping(sqs, prefix=told.reply_queue_prefix, settle=results.settle),
        hosts=hosts,
        health=Health(sqs, job_queue_url=told.job_queue_url, hosts=hosts),
        default_wait_s=told.default_wait_s,
        allow_local_webhooks=told.allow_local_webhooks,
    )
