"""Faults of a node's system: it stands still, panics, cannot be reached, or does not reboot."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from piseduce_runner.errors import UserError
from piseduce_runner.lab import procfs
from piseduce_runner.lab.faults.firewall import rules
from piseduce_runner.lab.faults.parts import Parts, beside

LOOK_AGAIN = 0.05  # seconds between two looks at what a node runs


@asynccontextmanager
async def freeze(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    board = parts.boards[node]
    if board.init is None:
        raise UserError(f"freeze {node}: nothing runs on it")
    try:
        # One that has just been started may have been missed.
        while moving := {pid for pid in board.processes() if procfs.may_run(pid)}:
            _send(signal.SIGSTOP, moving)
            await asyncio.sleep(0.01)
        yield
    finally:
        _send(signal.SIGCONT, board.processes())


@asynccontextmanager
async def crash(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    board = parts.boards[node]
    if board.init is None:
        raise UserError(f"crash {node}: nothing runs on it")
    board.crash()
    yield


@asynccontextmanager
async def ssh_hang(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    """New connections are made by the node's kernel; whatever its server then says is lost."""
    chains = """
        chain mark_new {
            type filter hook input priority 0;
            tcp dport 22 tcp flags & (syn | ack) == syn ct mark set 1
        }
        chain silence {
            type filter hook output priority 0;
            tcp sport 22 ct mark 1 tcp flags & psh == psh drop
        }"""
    async with rules(parts, node, "ssh-hang", chains):
        yield


@asynccontextmanager
async def ssh_refused(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    chains = """
        chain refuse_new {
            type filter hook input priority 0;
            tcp dport 22 tcp flags & (syn | ack) == syn reject with tcp reset
        }"""
    async with rules(parts, node, "ssh-refused", chains):
        yield


@asynccontextmanager
async def reboot_ignored(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    """`reboot` asks the node's init by a signal; an init that is stopped leaves it waiting.

    When the fault is cleared, a reboot that was asked for meanwhile happens.
    """

    def stop_init() -> None:
        init = parts.boards[node].init
        if init and procfs.may_run(init) and _serves_ssh(init):
            _send(signal.SIGSTOP, [init])

    async def keep_stopped() -> None:  # also after the next boot
        while True:
            stop_init()
            await asyncio.sleep(LOOK_AGAIN)

    stop_init()
    try:
        async with beside(keep_stopped()):
            yield
    finally:
        if init := parts.boards[node].init:
            _send(signal.SIGCONT, [init])


def _serves_ssh(init: int) -> bool:
    """Whether the system has got so far that somebody could ask it to reboot."""
    return any(procfs.name_of(child) == "sshd" for child in procfs.children(init))


@asynccontextmanager
async def reboot_hang(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    parts.boards[node].defects.hangs_at_reboot = True
    try:
        yield
    finally:
        parts.boards[node].defects.hangs_at_reboot = False


@asynccontextmanager
async def old_system(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    parts.boards[node].defects.boots_card = True
    try:
        yield
    finally:
        parts.boards[node].defects.boots_card = False


def _send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, number)
