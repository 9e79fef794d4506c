"""The image of the API, its compose file, and what containers cost."""

from pathlib import Path

import pytest
import yaml

from chalicelib import settings
from infra.capacity import api_containers, costs
from infra.images import agent_image, api_image
from infra.paths import ROOT
from infra.server import gunicorn_settings

DECISION = ROOT / "docs/decisions/021-api-in-containers.md"
COMPOSE = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())["services"]


def test_documented_costs_match_code():
    assert api_containers.table() in DECISION.read_text()
    assert gunicorn_settings.threads == api_containers.THREADS


@pytest.mark.parametrize("seconds", api_containers.PROGRAM_S)
def test_containers_have_a_thread_for_each_waiting_request(seconds):
    tasks = api_containers.tasks_needed(100_000, seconds)
    waiting = 100_000 / 3600 * (seconds + costs.LAMBDA_S)
    assert tasks * api_containers.THREADS * api_containers.UTILIZATION >= waiting


def test_image_contains_the_api_and_no_requirements():
    names = set(api_image._sources().values())
    assert {"lambda_app/app.py", "lambda_app/.chalice/config.json", "infra/server/wsgi.py"} <= names
    assert not [name for name in names if "requirements" in name or name.endswith(".pyc")]


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_services_have_no_privilege(name):
    service = COMPOSE[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["image"] in {api_image.REPOSITORY, agent_image.REPOSITORY}


def test_compose_gives_every_service_the_time_that_it_needs_to_stop():
    assert int(COMPOSE["api"]["stop_grace_period"].removesuffix("s")) > gunicorn_settings.graceful_timeout
    assert gunicorn_settings.graceful_timeout > settings.MAX_WAIT_S


def test_compose_runs_an_existing_module():
    module = COMPOSE["event-sources"]["command"][-1]
    assert Path(ROOT, *module.split(".")).with_suffix(".py").is_file()
    assert f"{module.replace('.', '/')}.py" in api_image._sources().values()
