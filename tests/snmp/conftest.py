"""Switches on loopback for the tests of poe_port."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from poe_bench import ACCESS, EventLoopThread, Served

from piseduce_runner.lab.switch import Access, PoeSwitch, serve


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[EventLoopThread]:
    thread = EventLoopThread()
    yield thread
    thread.close()


@pytest.fixture
def start_switch(loop_thread) -> Iterator[Callable[..., Served]]:
    """Starts a switch of 8 ports on a free port of loopback; ends it with the test."""
    running = []

    def start(*, access: Access = ACCESS, hook=None, **options: Any) -> Served:
        powered: list[tuple[int, bool]] = []

        def heard(port: int, on: bool) -> None:
            powered.append((port, on))
            if hook:
                hook(port, on)

        switch = PoeSwitch(8, heard, **options)
        manager = serve(switch, "127.0.0.1", 0, access)
        address, udp_port = loop_thread.run(manager.__aenter__())
        running.append(manager)
        return Served(switch, address, udp_port, powered, loop_thread)

    yield start
    for manager in running:
        loop_thread.run(manager.__aexit__(None, None, None))


@pytest.fixture
def served(start_switch) -> Served:
    return start_switch()
