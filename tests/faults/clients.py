"""Send jobs to the stack under test, as customers do, and check what they are answered.

A client sends one job at a time and retries a request until it is answered. A job is accepted once its request is
answered with 200 or 202. Each program prints its number and a random word, which another run of it would not print.
"""

import contextlib
import http.client
import itertools
import json
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from chalicelib.contract import MAX_MESSAGE_BYTES

CLIENT_TIMEOUT_S = 90.0  # from the first request of a job to its result
JOB_S = 0.3  # how long each program sleeps, so that many jobs run when a fault happens
POLL_INTERVAL_S = 0.2
PAUSE_S = 0.0  # between the jobs of a client
LARGE_INPUT = "x" * MAX_MESSAGE_BYTES
LARGE_OUTPUT_CHARS = MAX_MESSAGE_BYTES // 6 + 1  # control characters, which JSON escapes as six
RETRYABLE_STATUSES = {429, 502, 503, 504}


@dataclass(frozen=True)
class Kind:
    """How a client sends its jobs. Without a key, a retry of an unanswered request creates another job."""

    name: str
    has_key: bool = False
    is_async: bool = False
    has_callback: bool = False
    is_large: bool = False  # its jobs and their results go through the payload store
    runs: int = 1  # of each job: with more, it is a batch


IDEMPOTENT = Kind("Idempotency-Key", has_key=True)
KINDS = (
    IDEMPOTENT,
    Kind("plain"),
    Kind("asynchronous", has_key=True, is_async=True),
    Kind("webhook", is_async=True, has_callback=True),
    Kind("large", has_key=True, is_large=True),
    Kind("batch", has_key=True, runs=3),
)


@dataclass
class Job:
    """A job as its client sees it."""

    number: str
    kind: Kind
    sent_at: float
    wait_s: int | None = None
    sleep_s: float = 0.0
    id: str | None = None
    is_late: bool = False
    status: str = "lost"
    result: dict | None = None  # the first one
    answered_at: float = float("inf")
    is_wrong: bool = False
    error: str = ""  # why the job is lost or wrong

    @property
    def inputs(self):
        """Return the input of each of its runs. All have different lengths."""
        longest = LARGE_INPUT if self.kind.is_large else "x" * self.kind.runs
        return [longest[number:] for number in range(self.kind.runs)]

    @property
    def padding(self):
        """How many control characters its program prints."""
        return LARGE_OUTPUT_CHARS if self.kind.is_large else 0

    @property
    def is_good(self):
        """Whether the program ran and its result is right."""
        return self.status == "ok" and not self.is_wrong

    def mark_wrong(self, error):
        """Record a wrong result."""
        self.is_wrong, self.error = True, error

    def complete(self, result):
        """Record the first result."""
        self.answered_at = time.monotonic()  # before the status, which other threads wait for
        self.result = _without_webhook(result)
        if result["status"] == "failed":
            self.status = result["problem"]["type"].rpartition(":")[2]
            return
        results = result["runs"] if self.kind.runs > 1 else [result]
        for text, each in zip(self.inputs, results, strict=True):
            if not re.fullmatch(rf"{self.number} [0-9a-f]{{16}} {len(text)}\n\x01{{{self.padding}}}", each["stdout"]):
                self.mark_wrong(f"the result of another job: {result}")
        self.status = next((each["status"] for each in results if each["status"] != "ok"), "ok")

    def check_result_unchanged(self, result):
        """Compare a later result with the first one."""
        if _without_webhook(result) != self.result:
            self.mark_wrong(f"first {self.result}, then {result}")


class UnexpectedAnswerError(Exception):
    """The API gave an answer that no fault excuses."""


class Client:
    """Sends jobs and waits for their results."""

    def __init__(self, stack):
        self._stack = stack

    def run(self, job):
        """Send a job and record its result, through any failure on the way."""
        with self._recording_failures(job):
            status, answer = self._send(job)
            job.id, job.is_late = answer["id"], status == 202
            while status == 202:
                time.sleep(POLL_INTERVAL_S)
                status, answer = self._get(job, {200, 202}, job.sent_at)
            job.complete(answer)

    def verify_replay(self, job, webhook_deliveries):
        """Check that replays, GET /jobs and webhooks repeat the first result. `webhook_deliveries` are by job id."""
        with self._recording_failures(job):
            # A job that was answered at once, without a key, need not be stored.
            expected = {200} if job.is_late or job.kind.has_key else {200, 404}
            status, answer = self._get(job, expected, time.monotonic())
            if status == 200:
                job.check_result_unchanged(answer)
            if job.kind.has_key:
                status, answer = self._send(job, time.monotonic())
                if status == 200:
                    job.check_result_unchanged(answer)
                elif (answer["id"], job.kind.is_async) != (job.id, True):
                    raise UnexpectedAnswerError(f"{status}: {answer}")
            if job.kind.has_callback:
                for body in webhook_deliveries.get(job.id, ()):
                    job.check_result_unchanged(body)
                if job.id not in webhook_deliveries:
                    raise TimeoutError("webhook not delivered")

    @contextlib.contextmanager
    def _recording_failures(self, job):
        try:
            yield
        except TimeoutError as error:
            job.status, job.error = "lost", str(error)
        except UnexpectedAnswerError as error:
            job.mark_wrong(str(error))

    def _send(self, job, started_at=None):
        sleep_s, is_batch = job.sleep_s / job.kind.runs, job.kind.runs > 1
        code = f"import os, time; time.sleep({sleep_s}); print({job.number!r}, os.urandom(8).hex(), len(input()))"
        if job.kind.is_large:
            code += f"; print('\\1' * {job.padding}, end='')"
        runs = [{"input": text} for text in job.inputs]
        body = {"code": code, "timeout_s": job.sleep_s + 3, **({"runs": runs} if is_batch else runs[0])}
        headers = {"Content-Type": "application/json"}
        if job.kind.is_async:
            headers["Prefer"] = "respond-async"
        elif job.wait_s:
            headers["Prefer"] = f"wait={job.wait_s}"
        if job.kind.has_key:
            headers["Idempotency-Key"] = job.number
        if job.kind.has_callback:
            body["callback_url"] = self._stack.callback_url
        request = ("POST", "/batch" if is_batch else "/", json.dumps(body), headers)
        return self._retry_until_answered(request, {200, 202}, started_at or job.sent_at)

    def _get(self, job, expected, started_at):
        return self._retry_until_answered(("GET", f"/jobs/{job.id}", None, {}), expected, started_at)

    def _retry_until_answered(self, request, expected, started_at):
        last_answer = "no answer"
        while time.monotonic() < started_at + CLIENT_TIMEOUT_S:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, answer = self._exchange(*request)
                if str(answer.get("type")).rpartition(":")[0].endswith("job-failed"):
                    return 200, {"id": answer["job_id"], "status": "failed", "problem": answer}
                if status in expected:
                    return status, answer
                last_answer = f"{status}: {answer}"
                if status not in RETRYABLE_STATUSES:
                    raise UnexpectedAnswerError(f"{request[:2]} {last_answer}")
            time.sleep(POLL_INTERVAL_S)
        raise TimeoutError(last_answer)

    def _exchange(self, method, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self._stack.port, timeout=40)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers={"X-Api-Key": self._stack.api_key, **headers})
            response = connection.getresponse()
            return response.status, json.loads(response.read())


class LoadGenerator:
    """Runs a client of each kind until the context ends, and appends what they send to `jobs`."""

    def __init__(self, stack, jobs):
        self._stack, self._jobs = stack, jobs
        self.wait_s = None  # for which the next clients ask
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._name = uuid.uuid4().hex[:8]

    def __enter__(self):
        self._threads = ThreadPoolExecutor(len(KINDS))
        self._clients = [self._threads.submit(self._send, kind) for kind in KINDS]
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._threads.shutdown()
        for client in self._clients:
            client.result()

    def _send(self, kind):
        client = Client(self._stack)
        while not self._stop.is_set():
            job = Job(f"{self._name}-{next(self._numbers)}", kind, time.monotonic(), self.wait_s, JOB_S)
            self._jobs.append(job)
            client.run(job)
            self._stop.wait(PAUSE_S)

    def measure_recovery_s(self, fault_at, timeout_s):
        """Return the time from the fault until service is normal again, or infinity.

        Service is normal once every job that was running at the time of the fault is answered, and each kind of
        client has had a good result of a job that it sent later.
        """
        running = [job for job in list(self._jobs) if job.sent_at <= fault_at < job.answered_at and not job.error]
        while time.monotonic() < fault_at + timeout_s:
            answered_at = [job.answered_at for job in running]
            new_jobs = [job for job in list(self._jobs) if job.sent_at > fault_at and job.is_good]
            if {job.kind for job in new_jobs} == set(KINDS) and max(answered_at, default=fault_at) < float("inf"):
                firsts = [min(job.answered_at for job in new_jobs if job.kind == kind) for kind in KINDS]
                return max(answered_at + firsts) - fault_at
            time.sleep(0.05)
        return float("inf")


def _without_webhook(answer):
    return {name: value for name, value in answer.items() if name != "webhook"}
