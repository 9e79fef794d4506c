"""Builds everything that the routes and event handlers work with from the settings."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from msgspec import Struct
from urllib3 import PoolManager

from chalicelib.access.admission import Admission
from chalicelib.access.key_table import KeyTable
from chalicelib.access.load_shedding import LoadShedder
from chalicelib.fleet.canary import Canary
from chalicelib.fleet.health import Health
from chalicelib.fleet.host_registry import HostRegistry
from chalicelib.jobs.dispatcher import JobDispatcher
from chalicelib.jobs.job_results import JobResults
from chalicelib.jobs.job_table import JobTable
from chalicelib.jobs.payload_store import PayloadStore
from chalicelib.jobs.pending_jobs import PendingJobs
from chalicelib.jobs.reply_queue import ReplyQueues
from chalicelib.jobs.reply_queue_cleanup import ReplyQueueCleanup
from chalicelib.jobs.submit import JobService
from chalicelib.settings import Settings
from chalicelib.sqs import LONG_POLL_S
from chalicelib.webhooks.client import WebhookClient
from chalicelib.webhooks.delivery import WebhookDelivery

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_sqs import SQSClient

MAX_CONNECTIONS: Final = 128  # chalice local serves each connection in its own thread
SHORT_CALL_CONFIG: Final = Config(
    connect_timeout=1,
    read_timeout=3,  # part of the time in which a client waits for its result
    retries={"mode": "standard", "total_max_attempts": 2},  # API Gateway gives up after 29 s
    max_pool_connections=MAX_CONNECTIONS,
    tcp_keepalive=True,
)
LONG_POLL_CONFIG: Final = SHORT_CALL_CONFIG.merge(Config(read_timeout=LONG_POLL_S + 5))


class Components(Struct, frozen=True, kw_only=True):
    """One of each per process."""

    admission: Admission
    load_shedders: Mapping[str, LoadShedder]  # by name of the runtime
    jobs: JobService
    results: JobResults
    reply_queues: ReplyQueues
    reply_queue_cleanup: ReplyQueueCleanup
    webhooks: WebhookDelivery
    hosts: HostRegistry
    health: Health
    canary: Canary
    default_wait_s: float
    local_webhook_ports: frozenset[int]


def build_components(settings: Settings) -> Components:
    """Build the components. Makes no call to AWS."""
    session = boto3.Session()
    sqs: SQSClient = session.client("sqs", config=SHORT_CALL_CONFIG)
    dynamodb: DynamoDBClient = session.client("dynamodb", config=SHORT_CALL_CONFIG)
    payloads = _payload_store(session, url=settings.payload_store_url)
    dispatcher = JobDispatcher(sqs, job_queue_urls=settings.job_queue_urls, payloads=payloads)
    key_table = KeyTable(dynamodb, name=settings.keys_table)
    job_table = JobTable(dynamodb, name=settings.jobs_table)
    pending_jobs = PendingJobs(dynamodb, name=settings.jobs_table)
    admission = Admission(key_table)
    webhooks = _webhooks(sqs, settings, jobs=job_table, keys=key_table, payloads=payloads)
    results = JobResults(job_table, pending_jobs=pending_jobs, payloads=payloads, enqueue_webhook=webhooks.enqueue)
    make_reply_queues = partial(
        ReplyQueues,
        sqs,
        long_poll_sqs=session.client("sqs", config=LONG_POLL_CONFIG),
        prefix=settings.reply_queue_prefix,
    )
    reply_queues = make_reply_queues(on_late_reply=results.record_reply)
    canary_queues = make_reply_queues(on_late_reply=lambda _: None)  # no customer asks for its results
    hosts = HostRegistry(dynamodb, table=settings.jobs_table)
    return Components(
        admission=admission,
        load_shedders=_load_shedders(sqs, settings),
        jobs=JobService(
            job_table,
            admission=admission,
            pending_jobs=pending_jobs,
            dispatcher=dispatcher,
            reply_queues=reply_queues,
            results=results,
            payloads=payloads,
            result_retention_s=settings.result_retention_s,
        ),
        results=results,
        reply_queues=reply_queues,
        reply_queue_cleanup=ReplyQueueCleanup(sqs, settings.reply_queue_prefix, store_reply=results.record_reply),
        webhooks=webhooks,
        hosts=hosts,
        health=Health(sqs, job_queue_urls=settings.job_queue_urls, hosts=hosts),
        canary=Canary(dispatcher, reply_queues=canary_queues, payloads=payloads),
        default_wait_s=settings.default_wait_s,
        local_webhook_ports=settings.webhook_ports,
    )


def _webhooks(
    sqs: "SQSClient", settings: Settings, *, jobs: JobTable, keys: KeyTable, payloads: PayloadStore
) -> WebhookDelivery:
    client = WebhookClient(local_ports=settings.webhook_ports)
    return WebhookDelivery(
        sqs, queue_url=settings.webhook_queue_url, jobs=jobs, keys=keys, payloads=payloads, client=client
    )


def _load_shedders(sqs: "SQSClient", settings: Settings) -> dict[str, LoadShedder]:
    return {
        runtime: LoadShedder(sqs, job_queue_url=url, max_depth=settings.max_queue_depths[runtime])
        for runtime, url in settings.job_queue_urls.items()
    }


def _payload_store(session: boto3.Session, *, url: str) -> PayloadStore:
    return PayloadStore(
        url=url,
        region=session.region_name,
        credentials=session.get_credentials(),
        http=PoolManager(maxsize=MAX_CONNECTIONS),
    )
