"""The workflows of GitHub Actions run existing make targets, with pinned actions and few permissions."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}

each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@each_workflow
def test_actions_are_pinned_by_commit(workflow):
    actions = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert [action for action in actions if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)] == []


@each_workflow
def test_workflow_only_reads_the_repository(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    jobs = [job for job in workflow["jobs"].values() if "permissions" in job]
    signs = [any(step.get("uses", "").startswith("actions/attest@") for step in job["steps"]) for job in jobs]
    token = {"contents": "read", "id-token": "write"}  # to assume a role of AWS, and to sign
    allowed = [{**token, "attestations": "write"} if signing else token for signing in signs]
    assert [job["permissions"] for job in jobs] == allowed
    assert all(job["environment"] in {"staging", "production"} for job in jobs)
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert [checkout["with"]["persist-credentials"] for checkout in checkouts] == [False] * len(workflow["jobs"])


@each_workflow
def test_every_job_has_a_time_limit(workflow):
    assert [name for name, job in workflow["jobs"].items() if "timeout-minutes" not in job] == []


@each_workflow
def test_workflow_runs_existing_make_targets(workflow):
    matrix = [
        target
        for job in workflow["jobs"].values()
        for target in job.get("strategy", {}).get("matrix", {}).get("target", [])
    ]
    named = re.findall(r"\bmake ([a-z0-9-]+)", " ".join(step.get("run", "") for step in steps(workflow)))
    assert {*named, *matrix} <= TARGETS
    assert named or matrix


def test_what_is_deployed_is_signed_and_kept_with_its_bill_of_materials():
    steps = WORKFLOWS["deploy.yml"]["jobs"]["staging"]["steps"]
    commands = [step.get("run", step.get("uses", "").partition("@")[0]) for step in steps]
    deployed = commands.index("make deploy STAGE=staging")
    assert commands[deployed + 1 : deployed + 4] == ["actions/attest", "actions/attest", "actions/upload-artifact"]
    provenance, bill, kept = (step["with"] for step in steps[deployed + 1 : deployed + 4])
    assert provenance["subject-path"].split() == [".local/package/*", ".local/host-*.tar.gz"]
    assert (bill["subject-path"], bill["sbom-path"]) == (".local/package/api-*.zip", ".local/sbom-api.json")
    assert kept["path"].split() == [".local/package", ".local/sbom-*.json"]


def test_production_gets_the_artifacts_of_staging_after_a_review():
    jobs = WORKFLOWS["deploy.yml"]["jobs"]
    commands = {
        name: [step["run"] for step in job["steps"] if step.get("run", "").startswith("make")]
        for name, job in jobs.items()
    }
    assert commands["staging"][-2:] == ["make deploy STAGE=staging", "make promote FROM=staging STAGE=prod PLAN=1"]
    assert commands["production"][-1] == "make promote FROM=staging STAGE=prod"
    assert not [command for command in commands["production"] if "package" in command or "deploy" in command]
    assert (jobs["production"]["environment"], jobs["production"]["needs"]) == ("production", "staging")
