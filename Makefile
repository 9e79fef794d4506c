# Everything runs in .venv. `make run` installs requirements.txt; linters and tests add requirements-dev.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
COMPILED := $(VENV)/.compiled
WITH_ENGINE := $(BIN)/python -m infra.local.docker_daemon --
BROWSER := $(BIN)/python -m tests.support.browser # installs Chromium if there is none
PYTEST := $(BIN)/pytest
PARTS := -n 3 --dist loadgroup --no-loadscope-reorder tests/security tests/integration tests/unit # the short ones last
E2E := -n 3 --dist loadgroup --no-loadscope-reorder tests/e2e # in the order of tests/e2e/conftest.py
OCI_RUNTIME_TESTS := $(PYTEST) -n 2 --dist loadgroup tests/security \
	$(addprefix tests/integration/test_,programs.py regressions.py documented_gaps.py python_compatibility.py sandbox.py traceback_parser.py)
# uv is several times faster, but only pip reads pip's configuration, for example of a private index.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement
UV_INSTALL := $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python
STATIC := lambda_app/static-requirements.txt
# In environments of their own: checkov pins older versions of many packages.
UV_TOOL := $(BIN)/uv tool run --quiet --system-certs --python $(BIN)/python
CHECKOV := $(UV_TOOL) --from checkov==3.3.30 checkov
SBOM := $(UV_TOOL) --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --output-reproducible
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url

export PYTHONPATH := $(CURDIR)/lambda_app:$(CURDIR)
# `make test` and `make run` start many Python processes, which without bytecode would all compile the same modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run test check lint typecheck unit integration security e2e test-gvisor test-crun format attack \
	bench fairness soak soak-files fuzz mcp-clients test-emulators faults refresh-base sandbox-images agent-image api-image sbom \
	package lint-infra deploy set rollback promote destroy simulate-fleet lock clean

help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(RUN) ## Install what `make run` needs, and the command python-exec, into .venv

run: setup ## Run the whole stack on this machine until Ctrl-C
	@$(BIN)/python -m infra.local.stack

test: $(if $(TESTS),lint typecheck,$(DEV)) ## Run lint, types and every test; TESTS="tests/unit -x" selects tests, COVERAGE=1 measures branch coverage
ifndef TESTS # three processes, since many tests wait for something
	@$(MAKE) --no-print-directory --jobs --output-sync=target lint typecheck sandbox-images $(COMPILED)
	@$(BROWSER)
	$(WITH_ENGINE) sh -c '$(PYTEST) $(PARTS) $(if $(COVERAGE),--cov --cov-report=) && $(PYTEST) $(E2E)'
else ifeq ($(filter-out tests/unit%,$(filter tests%,$(TESTS))),$(if $(filter tests/unit%,$(TESTS)),,none))
	$(PYTEST) $(TESTS)
else
	$(WITH_ENGINE) $(PYTEST) $(TESTS)
endif

check: lint typecheck unit ## Run lint, types and unit tests: no Docker, less than a minute

lint: $(DEV) ## Check formatting and lint rules with ruff, and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

typecheck: $(DEV) ## Check types with mypy
	$(BIN)/mypy

unit: $(DEV) ## Run the unit tests
	$(PYTEST) -n auto tests/unit

integration: $(DEV) ## Run the tests against real Docker and an emulated AWS
	$(WITH_ENGINE) $(PYTEST) -n 3 --dist loadgroup tests/integration

security: $(DEV) ## Run hostile programs in real sandboxes of each runtime
	$(WITH_ENGINE) sh -c '$(PYTEST) -n 3 --dist loadgroup tests/security && $(PYTEST) -n 3 --dist loadgroup --runtime data tests/security'

e2e: $(DEV) ## Run the tests of the whole stack over HTTP
	@$(BROWSER)
	$(WITH_ENGINE) $(PYTEST) $(E2E)

test-gvisor: $(DEV) ## Run hostile programs, and those of the fidelity tests, in sandboxes under gVisor
	$(BIN)/python -m tests.support.oci_runtime runsc -- $(OCI_RUNTIME_TESTS)

test-crun: $(DEV) ## Run the same in sandboxes that crun starts
	$(BIN)/python -m tests.support.oci_runtime crun -- $(OCI_RUNTIME_TESTS)

attack: $(DEV) ## Run the hostile programs at a running API: URL=https://… with its key in API_KEY
	@test -n "$(URL)" -a -n "$$API_KEY" || { echo "Usage: API_KEY=pk_… make attack URL=https://…"; exit 1; }
	$(PYTEST) --url "$(URL)" --timeout 600 -q --no-header tests/security

format: $(DEV) ## Format the code and apply ruff's automatic fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## Run the benchmarks; print a table and write JSON to .local/
	$(WITH_ENGINE) $(BIN)/python -m tests.load.bench

fairness: $(DEV) ## Measure how much busy customers delay a quiet one; fail if it is too much
	$(WITH_ENGINE) $(BIN)/python -m tests.load.fairness

soak: $(DEV) ## Run hostile workloads and batches for about ten minutes; fail if an answer is wrong
	$(WITH_ENGINE) $(BIN)/python -m tests.load.soak
	$(WITH_ENGINE) $(BIN)/python -m tests.load.batches

soak-files: $(DEV) ## Send 3 MiB of random files in and out 200 times: FILES_RUNS, FILES_CLIENTS, FILES_BYTES
	$(WITH_ENGINE) $(BIN)/python -m tests.load.files

faults: $(DEV) ## Kill every component under load, three times each; fail if a job is lost: API=container runs its image
	$(WITH_ENGINE) $(BIN)/python -m tests.faults.run --api $(or $(API),process)

fuzz: $(DEV) ## Send 5,000 generated requests; fail unless each response is as the OpenAPI document says
	$(WITH_ENGINE) $(BIN)/python -m tests.fuzz.fuzz

mcp-clients: $(DEV) ## Call POST /mcp with the official TypeScript SDK
	$(WITH_ENGINE) $(BIN)/python -m tests.mcp_client.run

test-emulators: $(DEV) ## Run the tests of the whole stack on fauxqs and dynalite instead of moto's SQS and DynamoDB
	@$(BROWSER)
	$(WITH_ENGINE) $(BIN)/python -m tests.emulators.run

refresh-base: $(RUN) ## Pin the current base of all images, for the weekly rebuild; commit infra/images/base.json
	@$(WITH_ENGINE) $(BIN)/python -m infra.images.base_image

sandbox-images: $(RUN) ## Build the image of each runtime and print its tag
	@$(WITH_ENGINE) $(BIN)/python -m infra.images.runtime_images

agent-image: $(RUN) ## Build the agent image and save what a host loads to .local/host-….tar.gz
	@$(WITH_ENGINE) $(BIN)/python -m infra.images.agent_image

sbom: $(RUN) ## Write the Python packages of the API and of the images to .local/sbom-….json, as CycloneDX
	@mkdir -p .local
	cat lambda_app/requirements.txt $(STATIC) | $(SBOM) --output-file .local/sbom-api.json -
	$(SBOM) --output-file .local/sbom-agent.json executor_host/requirements.txt
	$(SBOM) --output-file .local/sbom-data.json infra/images/data/requirements.txt

api-image: $(RUN) ## Build the image of the API, for container platforms instead of Lambda
	@$(WITH_ENGINE) $(BIN)/python -m infra.images.api_image

package: $(RUN) ## Package the API and the templates of the stack for AWS; needs no account
	$(BIN)/python -m infra.aws.package

lint-infra: $(DEV) package ## Run cfn-lint and checkov on the templates
	$(BIN)/python -m infra.aws.lint_templates
	$(CHECKOV) --config-file infra/aws/checkov.yaml --file .local/package/template-*.json infra/aws/deployer.yaml infra/aws/vpc.yaml

deploy: package ## Create or update a stack on AWS: STAGE=prod PARAMETERS="VpcId=… SubnetIds=…"
	@$(BIN)/python -m infra.aws.deploy --architecture "$(or $(ARCHITECTURE),x86_64)" deploy "$(STAGE)" $(PARAMETERS)

set: $(RUN) ## Change parameters of a stack and nothing else: STAGE=prod PARAMETERS="MaxHosts=20"
	@$(BIN)/python -m infra.aws.deploy set "$(STAGE)" $(PARAMETERS)

rollback: $(RUN) ## Apply the release before, or RELEASE=…, without building anything: STAGE=prod
	@$(BIN)/python -m infra.aws.deploy rollback "$(STAGE)" --release "$(RELEASE)"

promote: $(RUN) ## Apply the release of another stage, or list the changes: FROM=staging STAGE=prod PLAN=1
	@$(BIN)/python -m infra.aws.deploy promote "$(STAGE)" --source "$(FROM)" $(if $(PLAN),--plan)

destroy: $(RUN) ## Delete a stack from AWS, except for its tables: STAGE=prod
	@$(BIN)/python -m infra.aws.deploy destroy "$(STAGE)"

simulate-fleet: $(RUN) ## Simulate the fleet under a day of bursty load: SEED=1 RUNS=50000 (per hour) DATA_SHARE=0.1
	@$(BIN)/python -m infra.capacity.simulate --seed $(or $(SEED),1) --runs-per-hour $(or $(RUNS),50000) --data-share $(or $(DATA_SHARE),0.1)

lock: $(RUN) ## Compile the .in files into requirements with hashes; needs the network
	$(COMPILE) --universal --python-version 3.11 --upgrade requirements.in --output-file requirements.txt
	$(COMPILE) --universal --python-version 3.11 --upgrade requirements-dev.in --output-file requirements-dev.txt
	$(COMPILE) --python-version 3.13 --constraint requirements.txt lambda_app/requirements.in --output-file lambda_app/requirements.txt
	$(COMPILE) --python-version 3.13 --no-deps --upgrade $(STATIC:.txt=.in) --output-file $(STATIC)
	$(COMPILE) --python-version 3.13 --constraint requirements.txt --no-deps infra/server/requirements.in --output-file infra/server/requirements.txt
	$(COMPILE) --python-version 3.13 --constraint requirements.txt pyproject.toml --output-file executor_host/requirements.txt
	$(COMPILE) --python-version 3.13 --upgrade infra/images/data/requirements.in --output-file infra/images/data/requirements.txt
	$(BIN)/python -m infra.images.data_packages

clean: ## Remove what the other targets created here; Docker keeps its images
	rm -rf $(VENV) .local .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage* *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

$(RUN): requirements.txt $(STATIC)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: make PYTHON=python3.11"; exit 1; }
	@echo "Creating .venv and downloading uv (18 MB)."
	@$(PYTHON) -m venv --clear $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > $(VENV)/uv.txt
	@$(PIP_INSTALL) $(VENV)/uv.txt
	@echo "Installing the packages of requirements.txt (40 MB)."
	@$(UV_INSTALL) --compile-bytecode --require-hashes --requirement requirements.txt || $(PIP_INSTALL) requirements.txt
	@$(UV_INSTALL) --no-deps --require-hashes --requirement $(STATIC) || $(PIP_INSTALL) $(STATIC) --no-deps
	@$(UV_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.txt $(RUN)
	@echo "Installing linters and test tools (130 MB)."
	@$(UV_INSTALL) --require-hashes --requirement requirements-dev.txt || $(PIP_INSTALL) requirements-dev.txt
	@touch $@

# Compile the modules that tests import, and no others, before the processes of `make test` would all do so at once.
$(COMPILED): $(DEV)
	@$(PYTEST) --collect-only --quiet --quiet >$@ || { cat $@; rm $@; exit 1; }
