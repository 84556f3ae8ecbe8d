# SPDX-License-Identifier: MIT
"""The card's root file system: what its superblock says, and checking it while it is unmounted.

Source of the offsets: the kernel's Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

import os
import struct
from collections import namedtuple

from ansible.module_utils.piseduce_device import open_device
from ansible.module_utils.piseduce_process import Failure, run

Superblock = namedtuple("Superblock", "blocks block_bytes clean errors replay")
"""blocks: number of blocks; block_bytes: size of one; clean, errors: bits of its state; replay: its
journal must be replayed, so it is mounted or was not unmounted."""

_MAGIC = 0xEF53
_STATE_CLEAN, _STATE_ERRORS = 1, 2
_INCOMPAT_RECOVER, _INCOMPAT_64BIT = 0x4, 0x80


def parse_superblock(data):
    """Read the 1024 bytes at byte 1024 of a file system.

    :raises Failure: it is not ext2, ext3 or ext4
    """
    if len(data) < 1024 or struct.unpack_from("<H", data, 0x38)[0] != _MAGIC:
        raise Failure("there is no ext4 file system in the card's root partition")
    (blocks,) = struct.unpack_from("<I", data, 0x04)
    (log_block,) = struct.unpack_from("<I", data, 0x18)
    (state,) = struct.unpack_from("<H", data, 0x3A)
    (incompat,) = struct.unpack_from("<I", data, 0x60)
    if log_block > 6:
        raise Failure(
            f"the card's root file system has an impossible block size (2^{log_block} KiB)"
        )
    if incompat & _INCOMPAT_64BIT:
        blocks |= struct.unpack_from("<I", data, 0x150)[0] << 32
    return Superblock(
        blocks,
        1024 << log_block,
        bool(state & _STATE_CLEAN),
        bool(state & _STATE_ERRORS),
        bool(incompat & _INCOMPAT_RECOVER),
    )


def read_superblock(path):
    """Superblock of the file system on a partition; see :func:`parse_superblock`."""
    descriptor = open_device(path, os.O_RDONLY)
    try:
        return parse_superblock(os.pread(descriptor, 1024, 1024))
    finally:
        os.close(descriptor)


def fills(superblock, partition_bytes):
    """Tell whether a file system is as large as its partition, to within one of its blocks."""
    spare = partition_bytes - superblock.blocks * superblock.block_bytes
    return 0 <= spare < superblock.block_bytes


def check(path, force):
    """Check an unmounted file system, and repair what can be repaired without a decision.

    :param force: look at everything, even if it was unmounted properly: what resize2fs demands
    :returns: True if something was repaired
    :raises Failure: it needs more than that
    """
    status, output = run(
        ["e2fsck", "-p", *(["-f"] if force else []), path],
        # e2fsck(8), "EXIT CODE": bits 1 and 2 are repaired, 4 is what -p does not dare.
        accept=range(8),
        what=f"checking {path}",
    )
    if status & 4:
        said = output.strip().splitlines()
        raise Failure(
            f"the card's root file system on {path} is damaged and e2fsck -p cannot repair it; "
            f"the image must be written again (env_copy): {said[-1] if said else 'no message'}"
        )
    return status != 0
