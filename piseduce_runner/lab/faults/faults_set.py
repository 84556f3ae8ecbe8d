"""The faults that are set in a running lab: setting, clearing, listing."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

from piseduce_runner.lab.faults import boot, card, image, link, manager, node, switch
from piseduce_runner.lab.faults.parameters import Value
from piseduce_runner.lab.faults.parts import Parts
from piseduce_runner.lab.faults.table import FAULTS, Lasts
from piseduce_runner.lab.faults.words import Wish

log = logging.getLogger("faults")

Effect = Callable[[Parts, str, Mapping[str, Any]], AbstractAsyncContextManager[None]]
Key = tuple[str, str]  # fault, target

EFFECTS: dict[str, Effect] = {
    "snmp-drop": switch.snmp_drop,
    "snmp-delay": switch.snmp_delay,
    "snmp-error": switch.snmp_error,
    "snmp-lie": switch.snmp_lie,
    "port-stuck-off": switch.port_stuck_off,
    "port-stuck-on": switch.port_stuck_on,
    "power-twice": switch.power_twice,
    "freeze": node.freeze,
    "crash": node.crash,
    "ssh-hang": node.ssh_hang,
    "ssh-refused": node.ssh_refused,
    "reboot-ignored": node.reboot_ignored,
    "reboot-hang": node.reboot_hang,
    "old-system": node.old_system,
    "boot-crowd": boot.boot_crowd,
    "tftp-loss": boot.tftp_loss,
    "tftp-missing": boot.tftp_missing,
    "wrong-mac": link.wrong_mac,
    "link-slow": link.link_slow,
    "link-cut": link.link_cut,
    "card-slow": card.card_slow,
    "card-readonly": card.card_readonly,
    "card-small": card.card_small,
    "card-failing": card.card_failing,
    "card-pulled": card.card_pulled,
    "card-corrupt": card.card_corrupt,
    "image-corrupt": image.image_corrupt,
    "image-short": image.image_short,
    "http-down": manager.http_down,
    "http-stall": manager.http_stall,
    "tftp-down": manager.tftp_down,
}


@dataclass(frozen=True)
class _Active:
    parameters: dict[str, Value]
    effect: AsyncExitStack


class FaultsSet:
    """Sets and clears one fault after the other. `changed` is called after each change."""

    def __init__(self, parts: Parts, changed: Callable[[], None]) -> None:
        self._parts = parts
        self._changed = changed
        self._active: dict[Key, _Active] = {}
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def listing(self) -> list[dict]:
        """What is set: {"fault", "target", "parameters"}, in the order of setting."""
        return [_fact(key, active) for key, active in self._active.items()]

    async def set(self, wish: Wish) -> list[dict]:
        """Makes a fault effective on all its targets, or on none; returns what was set.

        One that is set already is set anew. UserError: it cannot be now. OSError, RuntimeError:
        this machine refused.
        """
        done: dict[Key, _Active] = {}
        async with self._lock:
            try:
                for target in wish.targets:
                    key = (wish.fault.name, target)
                    await self._leave(key)
                    done[key] = self._active[key] = await self._enter(key, wish.parameters)
                    log.info("fault %s on %s: set %s", *key, wish.parameters or "")
            except BaseException:
                for key in done:
                    await self._leave(key)
                raise
            finally:
                self._changed()
            if wish.fault.lasts is Lasts.MOMENT:
                for key in done:
                    await self._leave(key)
        return [_fact(key, active) for key, active in done.items()]

    async def clear(self, name: str | None = None, target: str | None = None) -> list[dict]:
        """Clears what is set of a fault, of a target, or all; returns what was cleared."""
        async with self._lock:
            keys = [
                (fault, place)
                for fault, place in self._active
                if name in (None, fault) and target in (None, place)
            ]
            # The last one first, as far as faults depend on each other.
            facts = [fact for key in keys[::-1] if (fact := await self._leave(key))]
            self._changed()
            return facts[::-1]

    def power_cut(self, target: str) -> None:
        """The power of a node has gone, and with it some faults."""
        ending = [
            key
            for key in self._active
            if key[1] == target and FAULTS[key[0]].lasts is Lasts.UNTIL_POWER_OFF
        ]
        for name, _ in ending:
            task = asyncio.create_task(self._clear_one(name, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _clear_one(self, name: str, target: str) -> None:
        try:
            await self.clear(name, target)
        except (OSError, RuntimeError) as error:
            log.error("fault %s on %s could not be cleared: %s", name, target, error)

    async def clear_all_at_the_end(self) -> None:
        """Clears everything that can be, and never fails: the lab goes down."""
        for name, target in list(self._active)[::-1]:
            await self._clear_one(name, target)

    async def _enter(self, key: Key, parameters: dict[str, Value]) -> _Active:
        name, target = key
        stack = AsyncExitStack()
        await stack.enter_async_context(EFFECTS[name](self._parts, target, parameters))
        return _Active(parameters, stack)

    async def _leave(self, key: Key) -> dict | None:
        active = self._active.pop(key, None)
        if active is None:
            return None
        await active.effect.aclose()
        log.info("fault %s on %s: cleared", *key)
        return _fact(key, active)


def _fact(key: Key, active: _Active) -> dict:
    return {"fault": key[0], "target": key[1], "parameters": active.parameters}
