"""A LangChain agent that runs Python. Needs the packages langchain and that of a provider, such as langchain-openai.

Usage: python3 langchain_agent.py QUESTION, with URL and API_KEY of python-exec, and MODEL, for example
openai:gpt-5, with the key of its provider in the environment.
"""

import os
import sys

from client import ApiError, Client
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain.tools import tool
from tool_loop import describe

PROMPT = "Answer questions that need computing with the tool run_python, never in your head."


def build_agent(model, *, run):
    """Return an agent; `run` runs a program and returns its result."""

    @tool
    def run_python(code: str) -> str:
        """Run a Python 3 program in a sandbox without network, and return what it prints."""
        try:
            return describe(run(code))
        except ApiError as error:
            return f"The program was not run. {error}"

    return create_agent(model, tools=[run_python], system_prompt=PROMPT)


def answer(agent, question):
    """Return the last message of the agent."""
    return agent.invoke({"messages": [{"role": "user", "content": question}]})["messages"][-1].content


if __name__ == "__main__":
    agent = build_agent(init_chat_model(os.environ["MODEL"]), run=Client(os.environ["URL"], os.environ["API_KEY"]).run)
    print(answer(agent, " ".join(sys.argv[1:])))
