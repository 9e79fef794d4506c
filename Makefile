# Everything runs in .venv, which is rebuilt when the pinned requirements change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WITH_ENGINE := $(BIN)/python -m infra.local.docker_daemon --
PYTEST := $(BIN)/pytest

export PYTHONPATH := $(CURDIR)/lambda_app:$(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help setup run test check lint typecheck unit integration security e2e format bench soak faults \
	sandbox-image agent-image package lint-infra deploy destroy simulate-fleet lock clean

help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(STAMP) ## Install everything that `make run` needs into .venv

run: setup ## Run the whole stack on this machine until Ctrl-C
	@$(BIN)/python -m infra.local.stack

test: lint typecheck ## Run lint, types and every test; TESTS="tests/unit -x" selects tests
ifndef TESTS # most tests wait for something; those of the whole stack are heavier
	$(WITH_ENGINE) sh -c '$(PYTEST) -n 3 --dist loadfile tests/unit tests/integration tests/security && $(PYTEST) -n 2 --dist loadfile tests/e2e'
else ifeq ($(filter-out tests/unit%,$(filter tests%,$(TESTS))),$(if $(filter tests/unit%,$(TESTS)),,none))
	$(PYTEST) $(TESTS)
else
	$(WITH_ENGINE) $(PYTEST) $(TESTS)
endif

check: lint typecheck unit ## Run lint, types and unit tests: no Docker, less than a minute

lint: $(STAMP) ## Check formatting and lint rules with ruff, and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

typecheck: $(STAMP) ## Check types with mypy
	$(BIN)/mypy

unit: $(STAMP) ## Run the unit tests
	$(PYTEST) -n auto tests/unit

integration: $(STAMP) ## Run the tests against real Docker and an emulated AWS
	$(WITH_ENGINE) $(PYTEST) -n 3 --dist loadfile tests/integration

security: $(STAMP) ## Run hostile programs in real sandboxes
	$(WITH_ENGINE) $(PYTEST) -n 3 --dist loadfile tests/security

e2e: $(STAMP) ## Run the tests of the whole stack over HTTP
	$(WITH_ENGINE) $(PYTEST) -n 2 --dist loadfile tests/e2e

format: $(STAMP) ## Format the code and apply ruff's automatic fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Run the benchmarks; print a table and write JSON to .local/
	$(WITH_ENGINE) $(BIN)/python -m tests.load.bench

soak: $(STAMP) ## Run hostile workloads for about six minutes; fail if an answer is wrong
	$(WITH_ENGINE) $(BIN)/python -m tests.load.soak

faults: $(STAMP) ## Kill every component under load, three times each; fail if a job is lost
	$(WITH_ENGINE) $(BIN)/python -m tests.faults.run

sandbox-image: $(STAMP) ## Build the sandbox image and print its tag
	@$(WITH_ENGINE) $(BIN)/python -m infra.images.sandbox_image

agent-image: $(STAMP) ## Build the agent image and save what a host loads to .local/host-….tar.gz
	@$(WITH_ENGINE) $(BIN)/python -m infra.images.agent_image

package: $(STAMP) ## Package the API and the templates of the stack for AWS; needs no account
	$(BIN)/python -m infra.aws.package

lint-infra: package ## Run cfn-lint on the packaged templates
	$(BIN)/python -m infra.aws.lint_templates

deploy: package ## Create or update a stack on AWS: STAGE=prod PARAMETERS="VpcId=… SubnetIds=…"
	@$(BIN)/python -m infra.aws.deploy --architecture "$(or $(ARCHITECTURE),x86_64)" deploy "$(STAGE)" $(PARAMETERS)

destroy: $(STAMP) ## Delete a stack from AWS, except for its tables: STAGE=prod
	@$(BIN)/python -m infra.aws.deploy destroy "$(STAGE)"

simulate-fleet: $(STAMP) ## Simulate the fleet under a day of bursty load: SEED=1 RUNS=50000 (per hour)
	@$(BIN)/python -m infra.capacity.simulate --seed $(or $(SEED),1) --runs-per-hour $(or $(RUNS),50000)

lock: $(STAMP) ## Compile the .in files into requirements with hashes; needs the network
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 --upgrade requirements.in --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 --upgrade requirements-dev.in --output-file requirements-dev.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --python-version 3.13 \
		--constraint requirements.txt lambda_app/requirements.in --output-file lambda_app/requirements.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --python-version 3.13 \
		--constraint requirements.txt pyproject.toml --output-file executor_host/requirements.txt

clean: ## Remove what the other targets created here; Docker keeps its images
	rm -rf $(VENV) .local .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@
