"""The operator's command line, which `make setup` installs as .venv/bin/python-exec.

Exit codes: 0 success, 1 the operation failed, 2 wrong usage.
"""

import boto3
import click
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.dynamodb import TableError
from infra import resources
from infra.capacity import quotas, sizing
from infra.errors import CommandError
from infra.operator import preflight as checks
from infra.operator.keys_cli import keys


@click.group()
def cli() -> None:
    """Operate python-exec."""


cli.add_command(keys)


@cli.command()
@click.option("--peak", default=str(sizing.DEFAULT_PEAK), show_default=True, help="Expected peak of runs per second.")
@click.option(
    "--data-share", default=str(sizing.DEFAULT_DATA_SHARE), show_default=True, help="Share of data in these runs."
)
@click.option("--instance-type", default="c7i.large", show_default=True, help="Instance type of the hosts.")
@click.option("--on-demand-hosts", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--set", "chosen", multiple=True, metavar="NAME=VALUE", help="A size that you set, such as MinHosts=1.")
def preflight(peak: str, data_share: str, instance_type: str, on_demand_hosts: int, chosen: tuple[str, ...]) -> None:
    """Compare the quotas of the AWS account with what a stack needs. Changes nothing.

    Exit code 1: a stack of these sizes could not start.
    """
    if not all("=" in setting for setting in chosen):
        raise click.UsageError("--set must have the form NAME=VALUE.")
    sizes = {sizing.PEAK: peak, sizing.DATA_SHARE: data_share}
    requested = {**sizes, **dict(setting.split("=", 1) for setting in chosen)}
    parameters = sizing.resolve(requested, current={}, instance_type=instance_type)
    click.echo(" ".join(f"{name}={value}" for name, value in parameters.items()))
    needed = quotas.needed_quotas({**parameters, "OnDemandHosts": on_demand_hosts}, instance_type=instance_type)
    try:
        statuses = checks.read_quotas(boto3.Session().client, needed)
    except BotoCoreError as error:
        raise CommandError(f"Cannot read the quotas: {error}") from error
    click.echo(f"\n{checks.table(statuses)}", nl=False)
    checks.require_quotas(statuses)


@cli.command(name="create-resources")
def create_resources() -> None:
    """Create queues, tables and a bucket, and print the settings of the API and of agents.

    For the API in containers; on AWS, `make deploy` does all that. Endpoints, region and credentials are those of your
    environment. What exists is left as it is.
    """
    try:
        settings = resources.create_resources(boto3.Session().client)
    except (BotoCoreError, ClientError) as error:
        raise CommandError(f"Cannot create the resources: {error}") from error
    for name, value in settings.items():
        click.echo(f"{name}={value}")


def main() -> None:
    """Run the command line and report a failed operation in one line."""
    try:
        cli(prog_name="python-exec")
    except (CommandError, TableError) as error:
        raise SystemExit(f"Error: {error}") from error
