# SPDX-License-Identifier: MIT
"""The card's partition table, read and changed by sfdisk(8), never by guesswork on its text."""

from __future__ import annotations

import json
from collections import namedtuple

from ansible.module_utils.piseduce_process import Failure, run
from ansible.module_utils.piseduce_sectors import SECTOR

Entry = namedtuple("Entry", "start size type bootable")
"""One partition: start and size in sectors, type as two hex digits, bootable as a bool."""

Table = namedtuple("Table", "disk_id entries")
"""disk_id: ``0x0123abcd``; entries: ``{partition number: Entry}``."""

# The kernel is told afterwards, and only of what has changed: re-reading the whole table fails as
# long as any partition is open.
_EDIT = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel"]


def read_table(path):
    """Read the partition table on the card itself.

    :param path: device file of the whole card
    :raises Failure: there is none, or it is no MBR with 512-byte sectors
    """
    answer = json.loads(run(["sfdisk", "--json", path], what=f"reading the table of {path}")[1])
    return parse_table(path, answer["partitiontable"])


def parse_table(path, table):
    """Turn what sfdisk says into a :class:`Table`; `path` is for messages and partition numbers."""
    if table["label"] != "dos":
        raise Failure(f"{path} has a partition table of type {table['label']}, only MBR is known")
    if table.get("sectorsize", SECTOR) != SECTOR:
        raise Failure(f"{path} has sectors of {table['sectorsize']} bytes, only 512 are known")
    entries = {}
    for part in table.get("partitions", []):
        index = int(part["node"][len(table["device"]) :].lstrip("p"))
        entries[index] = Entry(
            part["start"], part["size"], part["type"].lower(), part.get("bootable", False)
        )
    return Table(table["id"].lower(), entries)


def delete_entry(path, index):
    """Take one partition out of the table on the card; the kernel's view is not changed."""
    run([*_EDIT, "--delete", path, str(index)], what=f"deleting partition {index} of {path}")


def add_entry(path, index, entry):
    """Put one partition into the table on the card; the kernel's view is not changed.

    ``--wipe-partitions never``: what begins there is the image's file system, and it stays.
    """
    script = f"start={entry.start}, size={entry.size}, type={entry.type}\n"
    run(
        [*_EDIT, "--wipe", "never", "--wipe-partitions", "never", "-N", str(index), path],
        text=script,
        what=f"creating partition {index} of {path}",
    )
