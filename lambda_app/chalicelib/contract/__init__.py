"""Defines what the API and the agents exchange: jobs, replies and reports, their limits and their encoding.

This is the only package that both sides import, always as a whole. Golden files in tests/ freeze the wire format.
"""

from chalicelib.contract.encoding import *  # noqa: F403 - the package is one namespace
from chalicelib.contract.files import *  # noqa: F403
from chalicelib.contract.limits import *  # noqa: F403
from chalicelib.contract.messages import *  # noqa: F403
from chalicelib.contract.payloads import *  # noqa: F403
