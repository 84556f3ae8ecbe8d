"""The cards, SSH servers and switches of the other tests, and a bench without machines."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench import Bench, write_bench_site
from boot.conftest import module, sshd, start_sshd, system  # noqa: F401
from card.conftest import (  # noqa: F401
    card,
    check_options,
    copy_options,
    environment,
    make_card,
    manager,
    namespace,
    progress,
    published,
    raw_image,
    run_module,
    server,
    start_module,
    written,
)
from card.test_card_resize import grown, resize  # noqa: F401
from card.test_system_conf import configure  # noqa: F401
from snmp.conftest import loop_thread, served, start_switch  # noqa: F401

from piseduce_runner.site import Site
from piseduce_runner.site_reader import load_site


@pytest.fixture(scope="session")
def bench_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site of two nodes with our process table. Environments are the tests' to make."""
    return load_site(write_bench_site(tmp_path_factory.mktemp("bench") / "site"))


@pytest.fixture
def bench(bench_site: Site, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """bench(script) -> Bench: a store of its own, and runs that play the script."""
    made: list[Bench] = []

    def make(script=None) -> Bench:
        made.append(Bench(bench_site, tmp_path / f"{len(made)}", script))
        return made[-1]

    yield make
    for one in made:
        one.store.close()
