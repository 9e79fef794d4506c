"""Let a language model run Python: the tool loop of an OpenAI-style chat API. Needs only the standard library.

Usage: python3 tool_loop.py QUESTION, with URL and API_KEY of python-exec, and MODEL_URL (for example
https://api.openai.com/v1), MODEL_KEY and MODEL of the chat API in the environment.
"""

import json
import os
import sys
import urllib.request

from client import ApiError, Client

MAX_TURNS = 8
MAX_OUTPUT_CHARS = 8000  # more output costs tokens and rarely helps
MODEL_TIMEOUT_S = 120.0
TOOL = {
    "type": "function",
    "function": {
        "name": "run_python",
        "description": "Run a Python 3 program in a sandbox without network, and return what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The whole program. Print what you need."}},
            "required": ["code"],
        },
    },
}


def answer(question, *, complete, run):
    """Return the answer of the model, which may call the tool several times.

    `complete` sends messages to the model and returns its message; `run` runs a program and returns its result.
    """
    messages = [{"role": "user", "content": question}]
    for _ in range(MAX_TURNS):
        message = complete(messages)
        messages.append(message)
        if not message.get("tool_calls"):
            return message["content"]
        for call in message["tool_calls"]:
            output = run_tool(call["function"], run=run)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})
    raise RuntimeError(f"The model gave no answer in {MAX_TURNS} turns.")


def run_tool(function, *, run):
    """Return what the model sees of a tool call. It can correct a wrong one, so that raises nothing."""
    try:
        code = json.loads(function["arguments"])["code"]
    except (ValueError, KeyError, TypeError):
        return "The arguments must be a JSON object with the member code."
    try:
        return describe(run(code))
    except ApiError as error:
        return f"The program was not run. {error}"


def describe(result):
    """Return the result of a program as text for a model: head and tail of long output, and how the program ended."""
    parts = [shorten(result.get(name, "")) for name in ("stdout", "stderr")]
    if result["status"] != "ok":
        parts.append(f"status: {result['status']}")
    return "\n".join(part for part in parts if part) or "The program printed nothing."


def shorten(text):
    """Return the head and the tail of a text that is too long."""
    if len(text) <= MAX_OUTPUT_CHARS:
        return text
    half = MAX_OUTPUT_CHARS // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters omitted]\n{text[-half:]}"


def chat_model(url, key, model):
    """Return a function that sends messages to a chat API and returns the message of the model."""

    def complete(messages):
        request = urllib.request.Request(
            f"{url.rstrip('/')}/chat/completions",
            data=json.dumps({"model": model, "messages": messages, "tools": [TOOL]}).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
        )
        with urllib.request.urlopen(request, timeout=MODEL_TIMEOUT_S) as response:
            return json.load(response)["choices"][0]["message"]

    return complete


if __name__ == "__main__":
    print(
        answer(
            " ".join(sys.argv[1:]),
            complete=chat_model(os.environ["MODEL_URL"], os.environ["MODEL_KEY"], os.environ["MODEL"]),
            run=Client(os.environ["URL"], os.environ["API_KEY"]).run,
        )
    )
