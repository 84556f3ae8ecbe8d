# The targets are thin: what they do is in the package, in tests/, and in .ci/.
# The virtual environment is .venv; `make demo` and `make test` set up all they need on Debian.

VENV := .venv
BIN := $(VENV)/bin
NODES ?= 4
# What a lab needs, and below it what only the tests need.
APT_PACKAGES := python3-venv dnsmasq-base nginx-light mmdebstrap zstd busybox-static \
	mtools dosfstools e2fsprogs fdisk xz-utils bzip2 iproute2 nftables openssh-client openssl curl \
	snmp snmpd bmap-tools openssh-server udhcpc python3-fusepy

.PHONY: demo test faults lint clean setup

demo: setup
	sh examples/demo.sh $(BIN)/piseduce-run $(NODES)

# Three at once: most tests wait for nodes. A file's tests stay together, they share what they set up.
test: setup lint
	$(BIN)/pytest --numprocesses 3 --dist loadfile

# Every state of a deployment and every fault that can hit it: minutes, in two labs. Writes
# the page when all has ended as it must.
faults: setup
	$(BIN)/pytest tests/faults/matrix -m "" --numprocesses 3 --dist loadfile \
		--fault-matrix docs/fault-matrix.md

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline -q

setup: $(VENV)/.installed $(VENV)/.packages

# Started services are not wanted: the lab starts its own.
$(VENV)/.packages: Makefile | $(VENV)/.installed
	sh .ci/install-packages $(APT_PACKAGES)
	touch $@

$(VENV)/.installed: requirements.lock pyproject.toml
	sh .ci/install-packages python3-venv
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	-$(BIN)/piseduce-run lab down
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .ansible
