"""The examples with packages or a model run against the whole stack. Their models are scripted."""

import importlib
import os
import subprocess
import sys
import threading

import pytest
from langchain_core.messages import AIMessage, ToolMessage

from tests.support.markdown import ROOT
from tests.support.scripted_models import ANSWER, CODE, ChatServer, ScriptedChatModel

EXAMPLES = ROOT / "docs/examples"
QUESTION = "What is the 20th Fibonacci number?"


@pytest.fixture
def run_example(stack):
    """Return a function that runs an example as a script and returns what it prints."""

    def run(name, *arguments, **settings):
        environment = {**os.environ, "URL": stack.url, "API_KEY": stack.api_key, **settings}
        command = [sys.executable, EXAMPLES / name, *arguments]
        completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run


@pytest.fixture
def chat_server():
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_grader_prints_the_verdicts(run_example, tmp_path):
    folders = submissions, tests = tmp_path / "submissions", tmp_path / "tests"
    for folder in folders:
        folder.mkdir()
    (submissions / "double.py").write_text("print(2 * int(input()))")
    for number in (0, 3):
        (tests / f"{number}.in").write_text(f"{number}\n")
        (tests / f"{number}.out").write_text(f"{2 * number}\n")
    printed = run_example("grade.py", str(submissions), str(tests))
    assert printed.splitlines()[1:] == ["double        2/2   .."]


def test_tool_loop_runs_what_the_model_asks_for(run_example, chat_server):
    printed = run_example("tool_loop.py", QUESTION, MODEL_URL=chat_server.url, MODEL_KEY="x", MODEL="scripted")
    assert printed == f"{ANSWER}\n"
    outputs = [message["content"] for message in chat_server.requests[-1]["messages"] if message["role"] == "tool"]
    assert outputs[0] == "The arguments must be a JSON object with the member code."
    assert outputs[1].endswith("ZeroDivisionError: division by zero\n\nstatus: error")
    assert outputs[2] == "6765\n"
    assert chat_server.requests[0]["tools"][0]["function"]["name"] == "run_python"


def test_langchain_agent_runs_what_the_model_asks_for(stack, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example, client = importlib.import_module("langchain_agent"), importlib.import_module("client")
    calls = [
        AIMessage(content="", tool_calls=[{"name": "run_python", "args": {"code": code}, "id": f"c{number}"}])
        for number, code in enumerate(["1 / 0", CODE])
    ]
    model = ScriptedChatModel(responses=[*calls, AIMessage(content=ANSWER)])
    agent = example.build_agent(model, run=client.Client(stack.url, stack.api_key).run)
    messages = agent.invoke({"messages": [{"role": "user", "content": QUESTION}]})["messages"]
    outputs = [message.content for message in messages if isinstance(message, ToolMessage)]
    assert outputs[0].endswith("ZeroDivisionError: division by zero\n\nstatus: error")
    assert (outputs[1], messages[-1].content) == ("6765\n", ANSWER)


def test_langchain_agent_survives_refusal_by_the_api(stack, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example, client = importlib.import_module("langchain_agent"), importlib.import_module("client")
    call = {"name": "run_python", "args": {"code": ""}, "id": "c"}
    model = ScriptedChatModel(responses=[AIMessage(content="", tool_calls=[call]), AIMessage(content="I cannot.")])
    agent = example.build_agent(model, run=client.Client(stack.url, stack.api_key).run)
    assert example.answer(agent, QUESTION) == "I cannot."


def test_async_client_runs_programs_at_the_same_time(run_example, tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.py").write_text(f"print({number} ** 2)")
    (tmp_path / "12.py").write_text("1 / 0")
    lines = run_example("async_client.py", *sorted(tmp_path.iterdir())).splitlines()
    expected = {f"{tmp_path / f'{number}.py'} ok {number**2}" for number in range(12)}
    assert set(lines) == {*expected, f"{tmp_path / '12.py'} error "}
