"""Run the operator's command line as `python -m infra.operator`."""

from infra.operator.cli import main

main()
