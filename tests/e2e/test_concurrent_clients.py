"""Many clients at once: every client receives its own result."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.http_client import Client

JOBS, CLIENTS = 48, 16
CODE = "import sys\ntext = input()\nprint({token!r}, text)\nprint(text, {token!r}, file=sys.stderr)"


@pytest.mark.timeout(300)  # a busy machine runs two jobs per second
def test_concurrent_clients_receive_their_own_results(stack):
    tokens = [uuid.uuid4().hex for _ in range(JOBS)]

    def one_client(number):
        client = Client(stack.url, stack.api_key)
        answers = {
            token: client.run_until_done(code=CODE.format(token=token), input=token[::-1])
            for token in tokens[number::CLIENTS]
        }
        client.close()
        return answers

    with ThreadPoolExecutor(CLIENTS) as threads:
        answers = {token: answer for some in threads.map(one_client, range(CLIENTS)) for token, answer in some.items()}
    assert {answer.status for answer in answers.values()} == {200}
    right = {token: (f"{token} {token[::-1]}\n", f"{token[::-1]} {token}\n") for token in tokens}
    assert {token: (answer.body["stdout"], answer.body["stderr"]) for token, answer in answers.items()} == right
    assert len({answer.body["id"] for answer in answers.values()}) == JOBS


def test_requests_are_isolated(client):
    code = "import os\nfor d in '/tmp', '/dev/shm':\n    print(os.listdir(d))\n    open(d + '/x', 'w')"
    assert {client.run(code)["stdout"] for _ in range(8)} == {"['main.py']\n[]\n"}
