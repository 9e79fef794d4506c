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

from chalicelib import limits
from chalicelib.contract import Result, Status, Truncated, UncaughtException, Usage
from chalicelib.key_table import ChangedError, KeyTableError
from chalicelib.keys import KeyRecord, KeyStatus, new_key
from executor_host.channel import SandboxError
from executor_host.job_queue import Delivery
from executor_host.sandbox import Outcome


def client_error(code: str, operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


@dataclass
class FakeMessage:
    id: str
    body: str
    group: str | None = None
    visible_at: float = 0.0
    receipt: str | None = None


@dataclass
class FakeQueue:
    attributes: dict = field(default_factory=dict)
    messages: list[FakeMessage] = field(default_factory=list)


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

    def send_message(self, *, QueueUrl, MessageBody, MessageGroupId=None):
        with self._changed:
            self._begin("send_message")
            message = FakeMessage(id=f"message-{next(self._ids)}", body=MessageBody, group=MessageGroupId)
            self._queue(QueueUrl).messages.append(message)
            self._changed.notify_all()
            return {"MessageId": message.id}

    def receive_message(self, *, QueueUrl, MaxNumberOfMessages=1, WaitTimeSeconds=0):
        deadline = time.monotonic() + WaitTimeSeconds
        with self._changed:
            self._begin("receive_message")
            while not (found := self._visible(QueueUrl)[:MaxNumberOfMessages]):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return {}
                self._changed.wait(left_s)
            visibility_s = float(self.queues[QueueUrl].attributes.get("VisibilityTimeout", "30"))
            for message in found:
                message.visible_at = time.monotonic() + visibility_s
                message.receipt = f"receipt-{next(self._ids)}"
            return {"Messages": [{"MessageId": m.id, "ReceiptHandle": m.receipt, "Body": m.body} for m in found]}

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
            assert AttributeNames == ["ApproximateNumberOfMessages"]
            return {"Attributes": {"ApproximateNumberOfMessages": str(len(self._visible(QueueUrl)))}}

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


class FakeDispatcher:
    """Echoes the request in the result, or raises `error`."""

    def __init__(self):
        self.requests = []
        self.key_ids = []
        self.error = None

    def run(self, request, *, key_id):
        self.requests.append(request)
        self.key_ids.append(key_id)
        if self.error:
            raise self.error
        return Result(
            id="0" * 32,
            status=Status.ERROR,
            exit_code=1,
            signal=None,
            stdout=request.input,
            stderr=request.code,
            truncated=Truncated(stdout=True),
            error=UncaughtException(type="ValueError", message="no", line=3),
            usage=Usage(duration_ms=1, cpu_ms=2, memory_bytes=3, queued_ms=4),
            runtime="python 3.13",
        )


class FakeJobQueue:
    """A JobQueue in memory: what is received comes again only when it is given back."""

    def __init__(self, wait_s=0.05):
        self._wait_s = wait_s
        self._waiting = SimpleQueue()
        self._replies = defaultdict(SimpleQueue)
        self.deleted = []
        self.given_back = []
        self.failures = defaultdict(list)  # raised by the next calls of a method, one each

    def send(self, body):
        self._waiting.put(body)

    def next_reply(self, reply_to, timeout_s=30):
        return self._replies[reply_to].get(timeout=timeout_s)

    def receive(self):
        self._fail("receive")
        try:
            body = self._waiting.get(timeout=self._wait_s)
        except Empty:
            return None
        return Delivery(body, receipt=f"receipt of {body[:100]}")

    def reply(self, reply_to, body):
        self._fail("reply")
        self._replies[reply_to].put(body)

    def delete(self, delivery):
        self._fail("delete")
        self.deleted.append(delivery)

    def give_back(self, delivery):
        self.given_back.append(delivery)
        self._waiting.put(delivery.body)

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

    def spend(self, seen, plan, *, opened_by, now_us):
        with self._lock:
            self._begin("spend")
            held = self.records.get(seen.key_id)
            if held is None or not self._is_as_seen(held, seen, plan, opened_by, now_us):
                raise ChangedError(held)
            month = limits.current_month(seen, now_us)
            tat_us = max(held.tat_us, now_us) + limits.interval_us(plan)
            runs = held.runs + 1 if held.month == month else 1
            self.records[seen.key_id] = replace(held, tat_us=tat_us, month=month, runs=runs)
            return replace(seen, tat_us=tat_us, month=month, runs=runs)

    def _is_as_seen(self, held, seen, plan, opened_by, now_us):
        now_s = now_us // limits.SECOND_US
        month = limits.current_month(seen, now_us)
        same_month = held.month == month and held.runs < plan.runs_per_month
        return (
            held.status is KeyStatus.ACTIVE
            and held.plan == plan.name
            and getattr(held, opened_by) == getattr(seen, opened_by)
            and (opened_by == "secret_sha256" or held.old_secret_until > now_s)
            and (held.expires_at is None or held.expires_at > now_s)
            and (held.tat_us > now_us) == (seen.tat_us > now_us)
            and held.tat_us <= limits.latest_tat_us(plan, now_us)
            and (same_month if seen.month == month else held.month < month)
        )

    def _begin(self, operation):
        self.calls[operation] += 1
        if self.failing:
            raise KeyTableError("gone")
