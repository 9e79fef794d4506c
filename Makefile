# Everything runs in .venv, made on first use and again when the pinned requirements change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WITH_ENGINE := $(BIN)/python -m infra.local.docker_daemon --

export PYTHONPATH := $(CURDIR)/lambda_app:$(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench simulate soak faults image hostimage package lint-infra deploy destroy lock clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: $(STAMP) ## the whole stack on this machine, until Ctrl-C
	@$(BIN)/python -m infra.local.stack

test: lint ## lint, then every test; TESTS="tests/unit -x" runs less
ifdef TESTS
	$(WITH_ENGINE) $(BIN)/pytest $(TESTS)
else # most tests wait for something; those of the whole stack are heavier
	$(WITH_ENGINE) sh -c '$(BIN)/pytest -n 3 --dist loadfile tests/unit tests/integration tests/security && $(BIN)/pytest -n 2 --dist loadfile tests/e2e'
endif

lint: $(STAMP) ## formatting, ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## the benchmarks: a table here, JSON in .local/
	$(WITH_ENGINE) $(BIN)/python -m tests.load.bench

simulate: $(STAMP) ## the fleet under a day's load with bursts: a table here, a plot in .local/; SEED=… RUNS=… an hour
	@$(BIN)/python -m infra.capacity.simulate --seed $(or $(SEED),1) --runs-per-hour $(or $(RUNS),50000)

soak: $(STAMP) ## some six minutes of hostile customers; exit code 1 if an answer was wrong
	$(WITH_ENGINE) $(BIN)/python -m tests.load.soak

faults: $(STAMP) ## every part of the stack dies, three times each, under a stream of jobs; exit code 1 if one was lost
	$(WITH_ENGINE) $(BIN)/python -m tests.faults.run

image: $(STAMP) ## build the sandbox image and print its tag
	@$(WITH_ENGINE) $(BIN)/python -m infra.images.sandbox_image

hostimage: $(STAMP) ## the agent's image, and both images as .local/host-….tar.gz for hosts; needs PyPI
	@$(WITH_ENGINE) $(BIN)/python -m infra.images.agent_image

package: $(STAMP) ## the API as zips for both architectures, and the whole stack's templates; needs PyPI, no account
	$(BIN)/python -m infra.aws.package

lint-infra: package ## cfn-lint on the packaged templates, before and after SAM's transform
	$(BIN)/python -m infra.aws.lint_templates

deploy: package ## create or update the stack STAGE=… on AWS; PARAMETERS="VpcId=… SubnetIds=…", ARCHITECTURE=arm64
	@$(BIN)/python -m infra.aws.deploy --architecture "$(or $(ARCHITECTURE),x86_64)" deploy "$(STAGE)" $(PARAMETERS)

destroy: $(STAMP) ## delete the stack STAGE=… on AWS; its tables stay
	@$(BIN)/python -m infra.aws.deploy destroy "$(STAGE)"

lock: $(STAMP) ## compile the .in files into hashed requirements; needs the network
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 --upgrade requirements.in --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 --upgrade requirements-dev.in --output-file requirements-dev.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --python-version 3.13 \
		--constraint requirements.txt lambda_app/requirements.in --output-file lambda_app/requirements.txt

clean: ## remove what the other targets made here; Docker keeps the image
	rm -rf $(VENV) .local .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@
