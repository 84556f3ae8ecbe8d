"""Faults of a node's card: slow, locked, too small, failing, missing, forgetful."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from piseduce_runner.errors import UserError
from piseduce_runner.lab.card import Card
from piseduce_runner.lab.card_rate import CardRate, lift_limit
from piseduce_runner.lab.faults.bad_cell import BadCell, place_in_image
from piseduce_runner.lab.faults.parts import Parts, beside
from piseduce_runner.lab.loop_device import (
    set_direct_io,
    set_immutable,
    set_read_only,
    set_window,
)

LOOK_AGAIN = 0.01  # seconds between two looks at the card
SECTOR = 512


def _card(parts: Parts, node: str) -> Card:
    card = parts.boards[node].card
    if card is None:
        raise UserError(f"{node} has no card")
    return card


@asynccontextmanager
async def card_slow(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    card = _card(parts, node)
    if not given["rate"]:
        raise UserError("card-slow rate=0: it must be more than nothing")
    rate = CardRate(parts.folder)
    rate.enter()
    rate.enter_others(parts.boards[node].processes())
    try:
        rate.limit(card, given["rate"])
        yield
    finally:
        if parts.settings.card_rate:
            rate.limit(card, parts.settings.card_rate)
        else:
            lift_limit(card)
            set_direct_io(card.device, False)


@asynccontextmanager
async def card_readonly(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    """Who opens it to write is refused; a file system that is mounted goes on."""
    card = _card(parts, node)
    _lock(card, True)
    try:
        yield
    finally:
        _lock(card, False)


def _lock(card: Card, on: bool) -> None:
    descriptor = os.open(card.device, os.O_RDONLY)
    try:
        set_read_only(descriptor, on)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def card_small(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    card = _card(parts, node)
    size = given["size"]
    if not 0 < size < card.file.stat().st_size or size % SECTOR:
        raise UserError(
            f"card-small size={size}: whole sectors of {SECTOR} bytes, "
            f"and fewer than the card has ({card.file.stat().st_size})"
        )
    try:
        card.limit = size
        await asyncio.to_thread(_show_window, card)
        yield
    finally:
        card.limit = 0
        await asyncio.to_thread(_show_window, card)


@asynccontextmanager
async def card_pulled(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    """The device has no bytes any more, what is mounted gets I/O errors, the next boot no card."""
    card, defects = _card(parts, node), parts.boards[node].defects
    try:
        defects.card_pulled = card.gone = True
        await asyncio.to_thread(_show_window, card)
        # The partitions that the kernel knows would be written behind the end of the file.
        _refuse_writes(card, "card-pulled")
        yield
    finally:
        _accept_writes(card, "card-pulled")
        defects.card_pulled = card.gone = False
        await asyncio.to_thread(_show_window, card)


def _show_window(card: Card) -> None:
    offset = card.file.stat().st_size if card.gone else 0
    set_window(card.device, offset, card.limit)


@asynccontextmanager
async def card_failing(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    card = _card(parts, node)
    try:
        if given["after"]:
            async with beside(_fail_after(card, given["after"])):
                yield
        else:
            _refuse_writes(card, "card-failing")
            yield
    finally:
        _accept_writes(card, "card-failing")


async def _fail_after(card: Card, count: int) -> None:
    limit = _written(card) + count
    while _written(card) < limit:
        await asyncio.sleep(LOOK_AGAIN)
    _refuse_writes(card, "card-failing")


def _written(card: Card) -> int:
    """Bytes written to the card since this machine started; see the kernel's iostats.rst."""
    fields = Path(f"/sys/block/{card.name}/stat").read_text("ascii").split()
    return int(fields[6]) * SECTOR


def _refuse_writes(card: Card, reason: str) -> None:
    set_immutable(card.file, True)
    card.refusals.add(reason)


def _accept_writes(card: Card, reason: str) -> None:
    card.refusals.discard(reason)
    if not card.refusals:
        set_immutable(card.file, False)


@asynccontextmanager
async def card_corrupt(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    card = _card(parts, node)
    at = given["at"] or place_in_image(parts.folder.site / "environments")
    if at >= card.file.stat().st_size:
        raise UserError(f"card-corrupt at={at}: the card has {card.file.stat().st_size} bytes")
    with _opened(card.file) as descriptor:
        cell = BadCell(descriptor, at, given["times"])
        try:
            async with beside(_keep_bad(cell)):
                yield
        finally:
            cell.mend()


async def _keep_bad(cell: BadCell) -> None:
    while True:
        cell.look()
        await asyncio.sleep(LOOK_AGAIN)


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    descriptor = os.open(file, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
