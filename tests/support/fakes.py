# ruff: noqa: N803  # the arguments have boto3's names
"""In-memory stand-ins that record what they were told. Each passes the same test as the real thing."""

import itertools
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from botocore.exceptions import ClientError
from msgspec.structs import replace

from chalicelib.access import rate_limits
from chalicelib.access.api_keys import KeyRecord, KeyStatus, new_key
from chalicelib.access.key_table import ChangedError, KeyTableError
from chalicelib.contract import ResourceUsage, Result, Status, Truncated, UncaughtException
from chalicelib.fleet.host_registry import HostsError
from chalicelib.jobs.job_table import JobTableError
from chalicelib.jobs.pending_jobs import TooManyWaitingError
from executor_host.channel import SandboxError
from executor_host.job_queue import BATCH, Delivery
from executor_host.sandbox import Outcome


def client_error(code: str, operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


@dataclass
class FakeMessage:
    id: str
    body: str
    group: str | None = None
    visible_at: float = 0.0
    delay_s: int = 0
    receipt: str | None = None
    sent_at: float = field(default_factory=time.time)


@dataclass
class FakeQueue:
    attributes: dict = field(default_factory=dict)
    messages: list[FakeMessage] = field(default_factory=list)
    created_at: float = field(default_factory=time.time)


class FakeSqs:
    """Standard queues: long polls, visibility timeouts, receipts; delivers twice only what was sent twice."""

    def __init__(self):
        self._changed = threading.Condition()
        self._ids = itertools.count()
        self.queues: dict[str, FakeQueue] = {}
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, list[Exception]] = defaultdict(list)  # raised by the next calls, one each

    def create_queue(self, *, QueueName, Attributes):
        with self._changed:
            self._begin("create_queue")
            url = f"http://sqs.test/000000000000/{QueueName}"
            self.queues.setdefault(url, FakeQueue(dict(Attributes)))
            return {"QueueUrl": url}

    def delete_queue(self, *, QueueUrl):
        with self._changed:
            self._begin("delete_queue")
            self._queue(QueueUrl)
            del self.queues[QueueUrl]
            self._changed.notify_all()

    def send_message(self, *, QueueUrl, MessageBody, MessageGroupId=None, DelaySeconds=0):
        with self._changed:
            self._begin("send_message")
            message = FakeMessage(
                id=f"message-{next(self._ids)}",
                body=MessageBody,
                group=MessageGroupId,
                visible_at=time.monotonic() + DelaySeconds if DelaySeconds else 0.0,
                delay_s=DelaySeconds,
            )
            self._queue(QueueUrl).messages.append(message)
            self._changed.notify_all()
            return {"MessageId": message.id}

    def receive_message(
        self,
        *,
        QueueUrl,
        MaxNumberOfMessages=1,
        WaitTimeSeconds=0,
        VisibilityTimeout=None,
        MessageSystemAttributeNames=(),
    ):
        deadline = time.monotonic() + WaitTimeSeconds
        with self._changed:
            self._begin("receive_message")
            while not (found := self._visible(QueueUrl)[:MaxNumberOfMessages]):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return {}
                self._changed.wait(left_s)
            visibility_s = VisibilityTimeout
            if visibility_s is None:
                visibility_s = float(self.queues[QueueUrl].attributes.get("VisibilityTimeout", "30"))
            for message in found:
                message.visible_at = time.monotonic() + visibility_s
                message.receipt = f"receipt-{next(self._ids)}"
            return {"Messages": [self._received(message, MessageSystemAttributeNames) for message in found]}

    def _received(self, message, names):
        received = {"MessageId": message.id, "ReceiptHandle": message.receipt, "Body": message.body}
        if "SentTimestamp" in names:
            received["Attributes"] = {"SentTimestamp": str(int(message.sent_at * 1000))}
        return received

    def change_message_visibility(self, *, QueueUrl, ReceiptHandle, VisibilityTimeout):
        with self._changed:
            self._begin("change_message_visibility")
            for message in self._queue(QueueUrl).messages:
                if message.receipt == ReceiptHandle:
                    message.visible_at = time.monotonic() + VisibilityTimeout
            self._changed.notify_all()
            return {}

    def delete_message(self, *, QueueUrl, ReceiptHandle):
        with self._changed:
            self._begin("delete_message")
            queue = self._queue(QueueUrl)
            queue.messages = [message for message in queue.messages if message.receipt != ReceiptHandle]
            return {}

    def get_paginator(self, operation):
        assert operation == "list_queues"
        return self

    def paginate(self, *, QueueNamePrefix, PaginationConfig):
        with self._changed:
            self._begin("list_queues")
            urls = [url for url in self.queues if url.rsplit("/", 1)[1].startswith(QueueNamePrefix)]
        size = PaginationConfig["PageSize"]
        return [{"QueueUrls": urls[at : at + size]} for at in range(0, len(urls), size)] or [{}]

    def delete_message_batch(self, *, QueueUrl, Entries):
        with self._changed:
            self._begin("delete_message_batch")
            queue = self._queue(QueueUrl)
            receipts = {entry["ReceiptHandle"] for entry in Entries}
            queue.messages = [message for message in queue.messages if message.receipt not in receipts]
            return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def get_queue_attributes(self, *, QueueUrl, AttributeNames):
        with self._changed:
            self._begin("get_queue_attributes")
            visible = len(self._visible(QueueUrl))
            known = {
                "ApproximateNumberOfMessages": visible,
                "ApproximateNumberOfMessagesNotVisible": len(self._queue(QueueUrl).messages) - visible,
                "CreatedTimestamp": self._queue(QueueUrl).created_at,  # whole seconds on AWS, not on the emulator
            }
            return {"Attributes": {name: str(known[name]) for name in AttributeNames}}

    def _begin(self, operation):
        self.calls[operation] += 1
        self._changed.notify_all()
        if self.failures[operation]:
            raise self.failures[operation].pop(0)

    def wait_for_calls(self, operation, *, count, timeout_s=5):
        with self._changed:
            assert self._changed.wait_for(lambda: self.calls[operation] >= count, timeout_s), self.calls

    def _queue(self, url):
        if url not in self.queues:
            raise client_error("AWS.SimpleQueueService.NonExistentQueue")
        return self.queues[url]

    def _visible(self, url):
        return [m for m in self._queue(url).messages if m.visible_at <= time.monotonic()]


class FakeHosts:
    """Hosts in memory. `failing` takes the table away."""

    def __init__(self):
        self.reports = {}
        self.failing = False

    def store(self, report):
        self._check()
        self.reports[report.host] = report

    def seen(self):
        self._check()
        return list(self.reports.values())

    def _check(self):
        if self.failing:
            raise HostsError("gone")


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
        return self.promised or result_of("0" * 32, stdout=order.request.input, stderr=order.request.code)


def result_of(job_id, **changes):
    """A result with something in each member."""
    members = {
        "id": job_id,
        "status": Status.ERROR,
        "exit_code": 1,
        "signal": None,
        "stdout": "out",
        "stderr": "err",
        "truncated": Truncated(stdout=True),
        "error": UncaughtException(type="ValueError", message="no", line=3),
        "usage": ResourceUsage(duration_ms=1, cpu_ms=2, memory_bytes=3, queued_ms=4),
        "runtime": "python 3.13",
    }
    return Result(**members | changes)


class FakeJobQueue:
    """A JobQueue in memory: what is received comes again only when it is given back."""

    def __init__(self, wait_s=0.05):
        self._wait_s = wait_s
        self._waiting = SimpleQueue()
        self._sent = defaultdict(SimpleQueue)
        self.deleted = []
        self.given_back = []
        self.held = []  # what was prolonged, and for how long
        self.groups = {}  # of what was sent, by its body
        self.failures = defaultdict(list)  # raised by the next calls of a method, one each

    def put(self, body, group=None):
        self._waiting.put((body, group))

    def next_sent(self, queue_url, timeout_s=30):
        return self._sent[queue_url].get(timeout=timeout_s)

    def receive(self):
        self._fail("receive")
        try:
            body, group = self._waiting.get(timeout=self._wait_s)
        except Empty:
            return None
        return Delivery(body, receipt=f"receipt of {body[:100]}", group=group)

    def send(self, queue_url, body, *, group=None):
        self._fail(f"send to {queue_url}")
        self.groups[body] = group
        self._sent[queue_url].put(body)

    def hold(self, deliveries, *, for_s):
        assert len(deliveries) <= BATCH
        self.held += [(delivery.body, for_s) for delivery in deliveries]
        self._fail("hold")
        return 0

    def delete(self, delivery):
        self._fail("delete")
        self.deleted.append(delivery)

    def give_back(self, delivery):
        self._fail("give_back")
        self.given_back.append(delivery)
        self._waiting.put((delivery.body, delivery.group))

    def _fail(self, method):
        if self.failures[method]:
            raise self.failures[method].pop(0)


class FakeSandbox:
    """Answers every program with itself; `outcome` may be an Outcome, or an exception to raise."""

    def __init__(self, number, engine, outcome=None):
        self.id = f"container-{number}"
        self.runtime = "python 3.13"
        self.alive = True
        self.ran = []
        self._engine = engine
        self._outcome = outcome

    def is_waiting(self):
        return self.alive

    def run(self, code, text, *, timeout_s):
        if not self.alive:
            raise SandboxError("it died before, or has run its one job")
        self.ran.append((code, text, timeout_s))
        self.destroy()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome or Outcome(status=Status.OK, exit_code=0, stdout=code, stderr=text, duration_ms=1)

    def destroy(self):
        self.alive = False
        self._engine.remove(self.id)


class FakeEngine:
    """Containers in memory. `outcomes` are those of the next sandboxes; `failing` makes every call fail."""

    def __init__(self):
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.created_at = {}  # of the containers that there are
        self.started = []
        self.outcomes = []
        self.failing = False
        self.starting = 0
        self.most_starting = 0
        self.start_takes_s = 0.0

    def start(self):
        with self._lock:
            self.starting += 1
            self.most_starting = max(self.most_starting, self.starting)
        time.sleep(self.start_takes_s)
        with self._lock:
            self.starting -= 1
            self._check()
            sandbox = FakeSandbox(next(self._numbers), self, self.outcomes.pop(0) if self.outcomes else None)
            self.created_at[sandbox.id] = time.time()
            self.started.append(sandbox)
            return sandbox

    def containers(self):
        self._check()
        return list(self.created_at.items())

    def remove(self, container_id):
        if not self.failing:
            self.created_at.pop(container_id, None)

    def _check(self):
        if self.failing:
            raise SandboxError("no engine")


KEY = new_key()  # of the customer whom the API knows in tests


def record_of(key, **changes):
    """What the table holds of a key that was just created."""
    members = {
        "key_id": key.key_id,
        "secret_sha256": key.sha256,
        "status": KeyStatus.ACTIVE,
        "plan": "pro",
        "owner": "somebody",
        "created_at": 1_700_000_000,
    }
    return KeyRecord(**members | changes)


class FakeKeyTable:
    """A KeyTable in memory. `failing` takes it away."""

    def __init__(self, *records):
        self._lock = threading.Lock()
        self.records = {record.key_id: record for record in records}
        self.calls = Counter()
        self.failing = False

    def change(self, key_id, **changes):
        with self._lock:
            self.records[key_id] = replace(self.records[key_id], **changes)

    def read(self, key_id):
        with self._lock:
            self._begin("read")
            return self.records.get(key_id)

    def spend(self, seen, plan, *, opened_by, now_us, runs):
        with self._lock:
            self._begin("spend")
            held = self.records.get(seen.key_id)
            if held is None or not self._is_as_seen(held, seen, plan, opened_by=opened_by, now_us=now_us, runs=runs):
                raise ChangedError(held)
            month = rate_limits.current_month(seen, now_us)
            tat_us = max(held.tat_us, now_us) + rate_limits.interval_us(plan)
            runs += held.runs if held.month == month else 0
            self.records[seen.key_id] = replace(held, tat_us=tat_us, month=month, runs=runs)
            return replace(seen, tat_us=tat_us, month=month, runs=runs)

    def _is_as_seen(self, held, seen, plan, *, opened_by, now_us, runs):
        now_s = now_us // rate_limits.SECOND_US
        month = rate_limits.current_month(seen, now_us)
        same_month = held.month == month and (not runs or held.runs + runs <= plan.runs_per_month)
        return (
            held.status is KeyStatus.ACTIVE
            and held.plan == plan.name
            and getattr(held, opened_by) == getattr(seen, opened_by)
            and (opened_by == "secret_sha256" or held.old_secret_until > now_s)
            and (held.expires_at is None or held.expires_at > now_s)
            and (held.tat_us > now_us) == (seen.tat_us > now_us)
            and held.tat_us <= rate_limits.latest_tat_us(plan, now_us)
            and (same_month if seen.month == month else held.month < month)
        )

    def _begin(self, operation):
        self.calls[operation] += 1
        if self.failing:
            raise KeyTableError("gone")


class FakeJobTable:
    """A JobTable in memory. `failing` takes it away."""

    def __init__(self, *records):
        self._lock = threading.Lock()
        self.records = {record.job_id: record for record in records}
        self.failing = False

    def read(self, job_id):
        with self._lock:
            return self._held(job_id)

    def claim(self, record, *, now_s):
        with self._lock:
            held = self._held(record.job_id)
            return self._put(record) if held is None or held.kept_until <= now_s else held

    def replace(self, seen, record):
        with self._lock:
            held = self._held(seen.job_id)
            if held is None:
                raise JobTableError("no such job")
            return self._put(record) if self._is_open(held) and not held.promised and held.nonce == seen.nonce else held

    def unclaim(self, record):
        with self._lock:
            held = self._held(record.job_id)
            if held is not None and self._is_open(held) and held.nonce == record.nonce:
                del self.records[record.job_id]

    def settle(self, job_id, reply):
        return self._change(job_id, self._is_open, reply=reply)

    def forget(self, job_id, *, key_id):
        nothing = {"reply": None, "webhook_url": None, "webhook_error": None}
        return self._change(job_id, lambda held: held.key_id == key_id and held.is_asked_for, forgotten=1, **nothing)

    def note_webhook(self, seen, state, *, attempts, error=None):
        as_seen = (seen.webhook_state, seen.webhook_attempts)
        changes = {"webhook_state": state, "webhook_attempts": attempts, "webhook_error": error or ""}
        return self._change(seen.job_id, lambda held: (held.webhook_state, held.webhook_attempts) == as_seen, **changes)

    def state(self):
        """Of its only job's webhook: state, attempts, error."""
        (held,) = self.records.values()
        return held.webhook_state, held.webhook_attempts, held.webhook_error

    def _change(self, job_id, condition, **changes):
        with self._lock:
            held = self._held(job_id)
            return self._put(replace(held, **changes)) if held is not None and condition(held) else held

    def _held(self, job_id):
        if self.failing:
            raise JobTableError("gone")
        return self.records.get(job_id)

    def _put(self, record):
        self.records[record.job_id] = record
        return record

    def _is_open(self, held):
        return held.reply is None and not held.forgotten


class FakeWaitingJobs:
    """WaitingJobs in memory."""

    def __init__(self):
        self._lock = threading.Lock()
        self.entries = defaultdict(dict)

    def add(self, job_id, *, key_id, plan, until, now_s):
        with self._lock:
            entries = self.entries[key_id]
            if (job_id, until) not in entries and len(entries) >= plan.waiting_jobs:
                for entry in [entry for entry in entries if entry[1] <= now_s]:
                    del entries[entry]
                if len(entries) >= plan.waiting_jobs:
                    raise TooManyWaitingError(plan)
            entries[job_id, until] = True

    def remove(self, job_id, *, key_id, until):
        with self._lock:
            self.entries[key_id].pop((job_id, until), None)
