# fedjob: the commands a newcomer needs. `make help` lists them.
VENV   ?= .venv
PY     := $(VENV)/bin/python
WHEELS := $(wildcard ../shared/wheels)
PIPENV := $(if $(WHEELS),PIP_FIND_LINKS="$(abspath $(WHEELS)) $$PIP_FIND_LINKS" PIP_CONSTRAINT=$(abspath $(WHEELS))/constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test e2e wheel images cluster-up cluster-down bench chaos fuzz mutants lint lock clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# Rebuilt only when the declared or locked dependencies change, so the second call is instant.
$(VENV)/.installed: pyproject.toml hack/constraints.txt
	python3 -m venv $(VENV)
	$(PIPENV) $(PY) -m pip install --quiet --disable-pip-version-check -c hack/constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## three hospitals train one model on real images, over mTLS, on this machine
	$(VENV)/bin/fedjob run examples/mnist/job.yaml

test: $(VENV)/.installed  ## lint, types, and every test that needs no cluster
	hack/test $(VENV)/bin

bench: $(VENV)/.installed  ## measure, side by side with other systems: make bench ONLY=P3,P4 ARGS="--peers ''"
	$(PIPENV) $(PY) benchmarks/run.py $(if $(ONLY),--only $(ONLY)) $(ARGS)

e2e: $(VENV)/.installed  ## against real Kubernetes, built from source the first time: make e2e ONLY=O6
	hack/e2e $(VENV)/bin $(if $(ONLY),$(ONLY))

wheel: $(VENV)/.installed  ## fedjob as a file for pip, in build/wheel
	$(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	@ls build/wheel/*.whl

images:  ## the operator's and the runtime's image, as archives in build/images: make images ACCELERATOR=cuda
	hack/images

cluster-up: $(VENV)/.installed  ## a real Kubernetes cluster on this machine (Linux, root): make cluster-up NAME=hub NODES=2
	hack/cluster $(VENV)/bin up $(or $(NAME),hub) $(if $(NODES),--nodes $(NODES))

cluster-down: $(VENV)/.installed  ## remove a cluster: make cluster-down NAME=hub; or all of them: make cluster-down ALL=1
	hack/cluster $(VENV)/bin down $(if $(ALL),--all,$(or $(NAME),hub))

chaos: $(VENV)/.installed  ## real jobs under faults: make chaos SEED=7 FAULTS=200, or PLAN=3, or ONLY=full-disk
	PYTHONPATH=tests $(PY) -m chaos.run $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) \
	  $(if $(PLAN),--plan $(PLAN)) $(if $(ONLY),--only $(ONLY))

fuzz: $(VENV)/.installed  ## files and messages altered at will, at length: make fuzz EXAMPLES=5000 SECONDS=600
	$(PIPENV) $(PY) -m pip install --quiet --disable-pip-version-check -c hack/constraints.txt -e '.[fuzz]'
	PYTHONPATH=tests $(PY) -m fuzz.guided --seconds $(or $(SECONDS),30)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),1000) $(VENV)/bin/pytest tests/fuzz --timeout 0

mutants: $(VENV)/.installed  ## would the tests notice? make mutants ONLY=fedjob.chunks,fedjob_operator.lease SAMPLE=50 SEED=7
	$(PIPENV) $(PY) -m pip install --quiet --disable-pip-version-check -c hack/constraints.txt -e '.[mutants]'
	PYTHONPATH=tests $(PY) -m mutants.run $(if $(ONLY),--only $(ONLY)) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/.installed  ## only lint and types
	hack/test $(VENV)/bin lint

lock: $(VENV)/.installed  ## pin every dependency: make lock; make lock PART=hashes after a change of pyproject.toml
	$(PIPENV) hack/lock $(VENV)/bin $(PART)

clean:  ## remove what the commands above made
	rm -rf $(VENV) build runs
