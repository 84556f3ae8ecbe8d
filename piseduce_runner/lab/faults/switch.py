"""Faults of the switch and of its ports."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from piseduce_runner.lab.faults.parts import Parts
from piseduce_runner.lab.settings import SWITCH


@asynccontextmanager
async def snmp_drop(parts: Parts, switch: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    faults = parts.switch.faults
    faults.silent, faults.drop_next = given["next"] == 0, given["next"]
    try:
        yield
    finally:
        faults.silent, faults.drop_next = False, 0


@asynccontextmanager
async def snmp_delay(parts: Parts, switch: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    parts.switch.faults.delay = given["seconds"]
    try:
        yield
    finally:
        parts.switch.faults.delay = 0.0


@asynccontextmanager
async def snmp_error(parts: Parts, target: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    faults = parts.switch.faults
    if target == SWITCH:
        faults.refuse_all = given["status"]
    else:
        faults.refuse[parts.node(target).port] = given["status"]
    try:
        yield
    finally:
        if target == SWITCH:
            faults.refuse_all = ""
        else:
            del faults.refuse[parts.node(target).port]


@asynccontextmanager
async def snmp_lie(parts: Parts, target: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    if target == SWITCH:
        parts.switch.faults.lie = True
    else:
        parts.switch.deaf.add(parts.node(target).port)
    try:
        yield
    finally:
        if target == SWITCH:
            parts.switch.faults.lie = False
        else:
            parts.switch.deaf.discard(parts.node(target).port)


@asynccontextmanager
async def port_stuck_off(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    async with _in(parts.switch.stuck_off, parts, node, parts.settings.stuck_off):
        yield


@asynccontextmanager
async def port_stuck_on(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    async with _in(parts.switch.stuck_on, parts, node, parts.settings.stuck_on):
        yield


@asynccontextmanager
async def _in(
    ports: set[int], parts: Parts, node: str, always: tuple[str, ...]
) -> AsyncIterator[None]:
    """Has a node's port in a set; afterwards the port does what it was told meanwhile."""
    port = parts.node(node).port
    ports.add(port)
    try:
        yield
    finally:
        if node not in always:  # `lab up` was asked for such a port
            ports.discard(port)
            parts.switch.settle(port)


@asynccontextmanager
async def power_twice(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    if given["mode"] == "no-power":
        port = parts.node(node).port
        parts.switch.reluctant[port] = given["tries"]
        try:
            yield
        finally:
            del parts.switch.reluctant[port]
            parts.switch.settle(port)
        return
    at_start = parts.boards[node].defects.at_start
    hang = _Reluctance(given["tries"])
    at_start.append(hang)
    try:
        yield
    finally:
        at_start.remove(hang)


class _Reluctance:
    """A board that starts only after some vain tries; and so again after that."""

    def __init__(self, tries: int) -> None:
        self._tries = tries
        self._vain = 0

    def __call__(self, power_came: bool) -> str:
        if not power_came:
            return ""
        if self._vain < self._tries:
            self._vain += 1
            return "does not start: the power has to come again"
        self._vain = 0
        return ""
