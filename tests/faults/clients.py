"""The clients of the fault suite: each sends one job after the other, and wants one result of each.

A job is accepted when its client was answered 200 or 202; without an answer the client sends its request again, as a
customer would. Each program prints its number and a word that another run of it would not print.
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

PATIENCE_S = 90.0  # of a client, from its first request to the result
JOB_S = 0.3  # of sleep in each program, so that many are under way when something dies
ASK_EVERY_S = 0.2
AGAIN = {429, 502, 503, 504}


@dataclass(frozen=True)
class Kind:
    """How a client asks. One without a key that gets no answer asks for another job the next time."""

    name: str
    has_key: bool = False
    is_async: bool = False
    has_callback: bool = False


KEYED = Kind("Idempotency-Key", has_key=True)
KINDS = (
    KEYED,
    Kind("plain"),
    Kind("asynchronous", has_key=True, is_async=True),
    Kind("webhook", is_async=True, has_callback=True),
)


@dataclass
class Job:
    number: str
    kind: Kind
    sent_at: float
    wait_s: int | None = None
    sleep_s: float = JOB_S
    id: str | None = None
    is_late: bool = False
    status: str = "lost"
    answer: dict | None = None  # the first one
    answered_at: float = float("inf")
    is_wrong: bool = False
    why: str = ""  # lost or wrong

    @property
    def is_good(self):
        return self.status == "ok" and not self.is_wrong

    def end(self, answer):
        self.answered_at = time.monotonic()  # before the status, which others wait for
        self.answer = _without_webhook(answer)
        if answer["status"] == "failed":
            self.status = answer["problem"]["type"].rpartition(":")[2]
            return
        if not re.fullmatch(rf"{self.number} [0-9a-f]{{16}}\n", answer["stdout"]):
            self.is_wrong, self.why = True, f"not its result: {answer}"
        self.status = answer["status"]

    def hear(self, answer):
        if _without_webhook(answer) != self.answer:
            self.is_wrong, self.why = True, f"first {self.answer}, then {answer}"


class UnexpectedAnswerError(Exception):
    """One that a customer must never see, whatever dies."""


class Customer:
    def __init__(self, world):
        self._world = world

    def run(self, job):
        """Sends a job and wants its result, whatever happens on the way."""
        with self._judging(job):
            status, answer = self._send(job)
            job.id, job.is_late = answer["id"], status == 202
            while status == 202:
                time.sleep(ASK_EVERY_S)
                status, answer = self._get(job, {200, 202}, job.sent_at)
            job.end(answer)

    def ask_again(self, job, delivered):
        """All that is to be heard of a job is what was answered first. `delivered` are webhooks by job."""
        with self._judging(job):
            # Of a job that nobody was told to ask for, no word is right, too.
            status, answer = self._get(job, {200} if job.is_late or job.kind.has_key else {200, 404}, time.monotonic())
            if status == 200:
                job.hear(answer)
            if job.kind.has_key:
                status, answer = self._send(job, time.monotonic())
                if status == 200:
                    job.hear(answer)
                elif (answer["id"], job.kind.is_async) != (job.id, True):
                    raise UnexpectedAnswerError(f"{status}: {answer}")
            if job.kind.has_callback:
                for body in delivered.get(job.id, ()):
                    job.hear(body)
                if job.id not in delivered:
                    raise TimeoutError("never delivered")

    @contextlib.contextmanager
    def _judging(self, job):
        try:
            yield
        except TimeoutError as error:
            job.status, job.why = "lost", str(error)
        except UnexpectedAnswerError as error:
            job.is_wrong, job.why = True, str(error)

    def _send(self, job, since=None):
        code = f"import os, time; time.sleep({job.sleep_s}); print({job.number!r}, os.urandom(8).hex())"
        body = {"code": code, "timeout_s": job.sleep_s + 3}
        headers = {"Content-Type": "application/json"}
        if job.kind.is_async:
            headers["Prefer"] = "respond-async"
        elif job.wait_s:
            headers["Prefer"] = f"wait={job.wait_s}"
        if job.kind.has_key:
            headers["Idempotency-Key"] = job.number
        if job.kind.has_callback:
            body["callback_url"] = self._world.callback_url
        return self._until_answered(("POST", "/", json.dumps(body), headers), {200, 202}, since or job.sent_at)

    def _get(self, job, good, since):
        return self._until_answered(("GET", f"/jobs/{job.id}", None, {}), good, since)

    def _until_answered(self, request, good, since):
        last = "no end of it"
        while time.monotonic() < since + PATIENCE_S:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, answer = self._once(*request)
                if str(answer.get("type")).rpartition(":")[0].endswith("job-failed"):
                    return 200, {"id": answer["job_id"], "status": "failed", "problem": answer}
                if status in good:
                    return status, answer
                last = f"{status}: {answer}"
                if status not in AGAIN:
                    raise UnexpectedAnswerError(f"{request[:2]} {last}")
            time.sleep(ASK_EVERY_S)
        raise TimeoutError(last)

    def _once(self, method, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self._world.port, timeout=40)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers={"X-Api-Key": self._world.api_key, **headers})
            response = connection.getresponse()
            return response.status, json.loads(response.read())


class Stream:
    """A client of each kind, for as long as the context lasts. Puts what they send into `jobs`."""

    def __init__(self, world, jobs, *, wait_s=None):
        self._world, self._jobs, self._wait_s = world, jobs, wait_s
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
        customer = Customer(self._world)
        while not self._stop.is_set():
            job = Job(f"{self._name}-{next(self._numbers)}", kind, time.monotonic(), self._wait_s)
            self._jobs.append(job)
            customer.run(job)

    def recovery_s(self, since, within_s):
        """How long until each job that was under way then is answered, and a new one of each client; else inf."""
        under_way = [job for job in list(self._jobs) if job.sent_at <= since < job.answered_at]
        while time.monotonic() < since + within_s:
            answered = [job.answered_at for job in under_way]
            anew = [job for job in list(self._jobs) if job.sent_at > since and job.is_good]
            if {job.kind for job in anew} == set(KINDS) and max(answered, default=since) < float("inf"):
                firsts = [min(job.answered_at for job in anew if job.kind == kind) for kind in KINDS]
                return max(answered + firsts) - since
            time.sleep(0.05)
        return float("inf")


def _without_webhook(answer):
    return {name: value for name, value in answer.items() if name != "webhook"}
