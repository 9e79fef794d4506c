"""The command `python-exec create-resources`."""

import boto3
import click
from botocore.exceptions import BotoCoreError, ClientError

from infra import resources
from infra.errors import CommandError


@click.command(name="create-resources")
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
