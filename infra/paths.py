"""Paths in this checkout. Only infra/ imports this module."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCAL: Final = ROOT / ".local"  # logs and state of this checkout; not in git
LAMBDA_APP: Final = ROOT / "lambda_app"
EXECUTOR_HOST: Final = ROOT / "executor_host"
