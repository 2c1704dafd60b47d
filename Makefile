# fedjob: the commands a newcomer needs. `make help` lists them.
VENV   ?= .venv
PY     := $(VENV)/bin/python
WHEELS := $(wildcard ../shared/wheels)
PIPENV := $(if $(WHEELS),PIP_FIND_LINKS="$(abspath $(WHEELS)) $$PIP_FIND_LINKS" PIP_CONSTRAINT=$(abspath $(WHEELS))/constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

# Rebuilt only when the declared or locked dependencies change, so the second call is instant.
$(VENV)/.installed: pyproject.toml hack/constraints.txt
	python3 -m venv $(VENV)
	$(PIPENV) $(PY) -m pip install --quiet --disable-pip-version-check -c hack/constraints.txt -e '.[dev]'
	touch $@

lock: ; $(PIPENV) hack/lock $(PY)  ## pin every dependency in hack/constraints.txt
clean: ; rm -rf $(VENV) build runs  ## remove what the commands above made
