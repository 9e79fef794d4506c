"""`make bench`: how fast each layer answers, beside what it could not be faster than, measured in the same run.

Prints a table and writes .local/bench.json. Latencies are milliseconds. Clients think for a moment between two
requests, so that up to four of them stay below what the machine sustains; sixteen do not, and queue.
"""

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import docker

from chalicelib.access.admission import Admission
from chalicelib.access.api_keys import new_key
from chalicelib.access.key_table import KeyTable
from chalicelib.contract import Job, decode_reply, encode
from chalicelib.problems import ProblemError
from executor_host.agent import Agent
from executor_host.docker_engine import DockerEngine
from executor_host.pool import Pool
from executor_host.visibility import VisibilityExtender
from infra.images.sandbox_image import ensure_image
from infra.local import emulated_aws
from infra.local.stack import local_stack
from infra.operator.key_admin import KeyStore
from tests.load import cold_start
from tests.support.fakes.job_queue import FakeJobQueue

LOCAL = Path(__file__).parents[2] / ".local"
CLIENTS = (1, 4, 16)
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "80"))  # of each row
THINK_S = 0.4
CORES = os.cpu_count() or 1
RATE_ROUNDS = 3
RATE_ROUND_S = 6.0
CODE, TEXT, ANSWER = "print(input()[::-1])", "hello", "olleh\n"


def measure(call, clients, requests=REQUESTS, think_s=THINK_S):
    """Milliseconds of each of `requests` calls, by `clients` threads; `call` gets the number of its client."""

    def client(number):
        took = []
        for _ in range(requests // clients):
            time.sleep(think_s)
            began = time.perf_counter()
            call(number)
            took.append((time.perf_counter() - began) * 1000)
        return took

    with ThreadPoolExecutor(clients) as threads:
        return [ms for took in threads.map(client, range(clients)) for ms in took]


def percentiles(milliseconds):
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return {"p50": round(cuts[49], 2), "p95": round(cuts[94], 2), "p99": round(cuts[98], 2)}


def check(said):
    assert said == ANSWER, said


def bare_python(_):
    check(subprocess.run([sys.executable, "-c", CODE], input=TEXT, capture_output=True, text=True, check=True).stdout)


def sandbox_latency(engine, clients, idle_s=0.0):
    """Of the run alone: each client starts its sandbox before its clock, and lets it wait for `idle_s`."""

    def prepared(_):
        sandbox = engine.start_sandbox()
        time.sleep(idle_s)
        began = time.perf_counter()
        outcome = sandbox.run(CODE, TEXT, timeout_s=3.0)
        took = (time.perf_counter() - began) * 1000
        check(outcome.stdout)
        return took

    with ThreadPoolExecutor(clients) as threads:
        return list(threads.map(prepared, range(REQUESTS)))


@contextlib.contextmanager
def agent_in_memory(engine):
    queue = FakeJobQueue(wait_s=1)
    pool = Pool(engine, size=2 * CORES, start_threads=CORES)
    visibility = VisibilityExtender(queue)
    agent = Agent(queue, pool=pool, visibility=visibility, results_queue_url="results", workers=2 * CORES)
    pool.start()
    agent.start()
    try:
        yield queue
    finally:
        agent.stop(30)
        pool.stop(10)


def ask(queue):
    now = time.time()
    name = uuid.uuid4().hex
    times = {"submitted_at": now, "reply_by": now + 60, "expires_at": now + 60}
    queue.enqueue(encode(Job(id=name, code=CODE, input=TEXT, reply_to=name, **times)))
    check(decode_reply(queue.wait_for_sent(name)).stdout)


def jobs_per_second(engine):
    """Jobs that one agent sustains, and the raw rate of the same container at the same parallelism, in turns."""
    raw, ours, cpu_s, jobs = [], [], 0.0, 0.0
    for _ in range(RATE_ROUNDS):
        raw.append(rate(lambda: engine.remove(engine.start_sandbox().id), threads=CORES))
        with agent_in_memory(engine) as queue:
            ask(queue)
            rate(lambda queue=queue: ask(queue), threads=4 * CORES, seconds=2.0)  # uses up what was warm before
            before_s = machine_cpu_s()
            ours.append(rate(lambda queue=queue: ask(queue), threads=4 * CORES))
            cpu_s += machine_cpu_s() - before_s
            jobs += ours[-1] * RATE_ROUND_S
    return {
        "agent": round(statistics.mean(ours), 2),
        "raw": round(statistics.mean(raw), 2),
        "agent/raw": round(statistics.mean(ours) / statistics.mean(raw), 3),
        "CPU ms a job": round(cpu_s / jobs * 1000),
    }


def machine_cpu_s():
    """What all processes together have used: the engine's and the containers' are most of it."""
    user, nice, system = (int(value) for value in Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def rate(call, threads, seconds=RATE_ROUND_S):
    done = []
    end = time.monotonic() + seconds

    def repeat(_):
        while time.monotonic() < end:
            call()
            done.append(time.monotonic())

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(repeat, range(threads)))
    return sum(at <= end for at in done) / seconds


def sqs_client():
    return boto3.client("sqs", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def echo(there, back):
    """The other side of the floor, in a process of its own as the agent is: whatever comes goes back."""
    sqs = sqs_client()
    while True:
        for message in sqs.receive_message(QueueUrl=there, WaitTimeSeconds=20).get("Messages", ()):
            sqs.send_message(QueueUrl=back, MessageBody=message["Body"])


@contextlib.contextmanager
def two_hops(environment):
    """A function that sends a job to one queue and waits for it to come back through another."""
    os.environ.update(environment)
    sqs = sqs_client()
    there, back = (sqs.create_queue(QueueName=f"bench-{way}")["QueueUrl"] for way in ("there", "back"))
    other = subprocess.Popen([sys.executable, "-m", "tests.load.bench", "echo", there, back])
    body = encode(Job(id="0" * 32, code=CODE, input=TEXT, reply_to=back, submitted_at=0, reply_by=0, expires_at=0))

    def there_and_back(_):
        sqs.send_message(QueueUrl=there, MessageBody=body)
        assert sqs.receive_message(QueueUrl=back, WaitTimeSeconds=20)["Messages"]

    there_and_back(0)
    try:
        yield there_and_back
    finally:
        other.kill()
        other.wait()


def admission_latency(environment):
    """Of Admission alone: name, milliseconds and calls of DynamoDB, for a known key and for one over its rate."""
    calls = Counter()
    dynamodb = emulated_aws.client("dynamodb", environment)
    dynamodb.meta.events.register("before-call", lambda model, **_: calls.update([model.name]))
    key, now_s = new_key(), [time.time()]
    KeyStore(dynamodb, table=environment["KEYS_TABLE"]).create(key, plan="free", owner="bench", now_s=0)
    admission = Admission(KeyTable(dynamodb, name=environment["KEYS_TABLE"]), clock=lambda: now_s[0])

    def refused(_):
        with contextlib.suppress(ProblemError):
            admission.admit(admission.identify([str(key)]))

    def admitted(_):
        now_s[0] += 1
        admission.admit(admission.identify([str(key)]))

    for name, call, before in (("a known key", admitted, 1), ("over its rate", refused, 5)):
        for number in range(before):
            call(number)
        calls.clear()
        yield f"admission, {name}", measure(call, 1, think_s=0.0), calls.total() / REQUESTS


def http_client(url, api_key):
    """A function that sends one request on the connection of its client."""
    connections = threading.local()
    body = json.dumps({"code": CODE, "input": TEXT})

    def post(_):
        if not hasattr(connections, "own"):
            connections.own = http.client.HTTPConnection(urlsplit(url).netloc)
        connections.own.request("POST", "/", body, {"Content-Type": "application/json", "X-Api-Key": api_key})
        check(json.loads(connections.own.getresponse().read())["stdout"])

    return post


def main():
    cold = cold_start.main()
    image = ensure_image(docker.from_env())
    engine = DockerEngine(image, agent=f"bench-{uuid.uuid4().hex[:8]}")
    rows = {}

    def row(name, milliseconds):
        rows[name] = percentiles(milliseconds)
        print(f"{name:32}" + "".join(f"{rows[name][cut]:10.2f}" for cut in ("p50", "p95", "p99")), flush=True)

    print(f"{'latency, ms':32}{'p50':>10}{'p95':>10}{'p99':>10}")
    row("bare python3 -c", measure(bare_python, 1))
    for clients in CLIENTS:
        row(f"sandbox, {clients} clients", sandbox_latency(engine, clients))
    row(f"sandbox, idle for {THINK_S} s before", sandbox_latency(engine, 1, THINK_S))  # caches have gone cold
    with agent_in_memory(engine) as queue:
        for clients in CLIENTS:
            row(f"agent, {clients} clients", measure(lambda _: ask(queue), clients))
    with local_stack(name="bench", logs=LOCAL) as stack:
        with two_hops(stack.environment) as there_and_back:
            row("floor: two queue hops", measure(there_and_back, 1))
        for name, milliseconds, calls in admission_latency(stack.environment):
            row(f"{name}: {calls:g} calls", milliseconds)
        post = http_client(stack.url, stack.api_key)
        post(0)
        for clients in CLIENTS:
            row(f"whole path, {clients} clients", measure(post, clients))
    rates = jobs_per_second(engine)
    print("\njobs per second: " + ", ".join(f"{name} {value}" for name, value in rates.items()))
    over_floor = rows["whole path, 1 clients"]["p50"] - rows["floor: two queue hops"]["p50"]
    print(f"whole path above its floor, p50: {over_floor:.2f} ms, the call of admission included")
    LOCAL.mkdir(exist_ok=True)
    figures = {"cores": CORES, "cold_start_ms": cold, "latency_ms": rows, "jobs_per_second": rates}
    written = LOCAL / "bench.json"
    written.write_text(json.dumps(figures, indent=2))
    print(f"written to {written}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["echo"]:
        echo(*sys.argv[2:])
    else:
        main()
