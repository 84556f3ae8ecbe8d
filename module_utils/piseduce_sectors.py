# SPDX-License-Identifier: MIT
"""From sizes to sectors: where partition 2 of a card begins and ends. Pure computation.

All sectors are of 512 bytes, as in the MBR of an image for a Raspberry Pi.
"""

from __future__ import annotations

SECTOR = 512
ALIGNMENT = 4 * 1024 * 1024 // SECTOR
"""Partition sizes are multiples of 4 MiB: the usual erase block of an SD card, and a multiple of
every block size of ext4, so that a file system can fill its partition to the last byte."""
MBR_LIMIT = 2**32 - 1
"""An MBR entry holds start and length as 32-bit numbers."""


class DoesNotFit(ValueError):
    """The partition that was asked for cannot be made; the message says why, in bytes."""


def root_partition_sectors(start, asked_bytes, image_sectors, card_sectors):
    """Size of partition 2, in sectors.

    :param start: its first sector, as in the image
    :param asked_bytes: size asked for in bytes, rounded up to a multiple of 4 MiB; 0 for the rest
        of the card, rounded down to a multiple of 4 MiB
    :param image_sectors: its size in the image, which its file system fills
    :param card_sectors: size of the whole card
    :raises DoesNotFit: smaller than in the image, beyond the card's end or what an MBR can hold
    """
    if start < 1 or image_sectors < 1 or asked_bytes < 0:
        raise DoesNotFit(
            f"start sector {start}, {image_sectors} sectors in the image and {asked_bytes} bytes "
            "asked for make no partition"
        )
    room = min(card_sectors, MBR_LIMIT) - start
    if room < image_sectors:
        raise DoesNotFit(
            f"the image's partition 2 ends at byte {(start + image_sectors) * SECTOR}, "
            f"the card has {card_sectors * SECTOR} bytes"
        )
    if asked_bytes == 0:
        # A card that is exactly as large as the image may have no 4 MiB to spare.
        return max(room // ALIGNMENT * ALIGNMENT, image_sectors)
    if asked_bytes < image_sectors * SECTOR:
        raise DoesNotFit(
            f"{asked_bytes} bytes were asked for partition 2, "
            f"the image needs {image_sectors * SECTOR}"
        )
    sectors = -(-asked_bytes // (ALIGNMENT * SECTOR)) * ALIGNMENT
    if sectors > room:
        raise DoesNotFit(
            f"{asked_bytes} bytes were asked for partition 2, the card has room for {room * SECTOR}"
        )
    return sectors
