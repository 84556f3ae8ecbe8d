#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: partition 2 of a node's card, absent or exactly as large as asked."""

from __future__ import annotations

from ansible.module_utils import piseduce_card
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_card import card_of
from ansible.module_utils.piseduce_device import size_of, size_of_path
from ansible.module_utils.piseduce_process import Failure, Hopeless, Watch, guarded
from ansible.module_utils.piseduce_sectors import SECTOR, DoesNotFit, root_partition_sectors
from ansible.module_utils.piseduce_table import Entry, add_entry, delete_entry, read_table

DOCUMENTATION = r"""
module: card_partition
short_description: Makes or removes partition 2 of a node's card
description:
  - With O(state=absent) the table on the card has no partition 2, and neither has the kernel. What
    is in the partition stays on the card.
  - With O(state=present) partition 2 begins at O(start_sector) and has the size asked for. Its
    contents stay as they are, so the file system of a partition that was removed is there again.
  - Disk id and all other partitions stay as they are, so PARTUUIDs stay valid.
  - What it did is proven by the table as it is read back from the card, and by the size that the
    kernel gives for the partition.
  - What earlier attempts left mounted below O(mount_directory) is unmounted first.
options:
  device:
    description: Device file of the whole card.
    type: path
    required: true
  mount_directory:
    description: What is mounted of the card below this folder may be unmounted, nothing else.
    type: path
    default: /mnt/piseduce
  other_media:
    description: Also accept a disk that is not on an SD/MMC host, such as a USB disk or an SSD.
    type: bool
    default: false
  timeout:
    description: Seconds after which the work is given up.
    type: int
    required: true
  state:
    description: Whether partition 2 is to be there.
    type: str
    choices: [present, absent]
    required: true
  disk_id:
    description: The disk id that the card must have, such as V(0xc0ffee01). It is the image's.
    type: str
    required: true
  start_sector:
    description: First sector of the partition, as in the image. Needed with O(state=present).
    type: int
  image_sectors:
    description:
      - Size of the partition in the image, in sectors of 512 bytes. It is never made smaller.
        Needed with O(state=present).
    type: int
  size_bytes:
    description:
      - Size asked for, in bytes. It is rounded up to a multiple of 4 MiB. With V(0) the partition
        takes the rest of the card, rounded down to a multiple of 4 MiB.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Remove partition 2 from the table
  card_partition:
    device: /dev/mmcblk0
    state: absent
    disk_id: "0x4e639091"
    timeout: 30

- name: Make it anew, with 8 GiB
  card_partition:
    device: /dev/mmcblk0
    state: present
    disk_id: "0x4e639091"
    start_sector: 1056768
    image_sectors: 4390912
    size_bytes: 8589934592
    timeout: 30
"""

RETURN = r"""
partition:
  description: Device file of partition 2.
  returned: with O(state=present), not in check mode
  type: str
start_sector:
  description: Its first sector.
  returned: with O(state=present)
  type: int
sectors:
  description: Its size in sectors of 512 bytes.
  returned: with O(state=present)
  type: int
"""

INDEX = 2
LINUX = "83"


def wanted_entry(options, table, card_bytes):
    """The table's entry that is asked for; refuses one that would overlap another."""
    try:
        sectors = root_partition_sectors(
            options["start_sector"],
            options["size_bytes"],
            options["image_sectors"],
            card_bytes // SECTOR,
        )
    except DoesNotFit as problem:
        raise Hopeless(str(problem)) from problem
    wanted = Entry(options["start_sector"], sectors, LINUX, False)
    for index, other in table.entries.items():
        apart = other.start + other.size <= wanted.start or wanted.start + sectors <= other.start
        if index != INDEX and not apart:
            raise Failure(f"partition 2 as asked would overlap partition {index} of the card")
    return wanted


def describe(table):
    """The table as text for Ansible's diff."""
    lines = [f"disk id {table.disk_id}"]
    for index, entry in sorted(table.entries.items()):
        boot = ", bootable" if entry.bootable else ""
        lines.append(
            f"partition {index}: start {entry.start}, {entry.size} sectors, type {entry.type}{boot}"
        )
    return "\n".join(lines) + "\n"


def partition(options, check_mode):
    """Do the module's work; returns its result."""
    path = options["device"]
    with (
        Watch(options["timeout"], "changing the card's partitions"),
        card_of(options, "card_partition") as card,
    ):
        if not check_mode:
            card.release_mounts()
        with card.opened(write=not check_mode) as descriptor:
            card_bytes = size_of(descriptor)
        before = read_table(path)
        if before.disk_id != options["disk_id"].lower():
            raise Failure(
                f"the card's disk id is {before.disk_id}, not {options['disk_id']}: "
                "the image is not on it (env_copy must run again)"
            )
        wanted = None
        if options["state"] == "present":
            wanted = wanted_entry(options, before, card_bytes)
        entries = {index: entry for index, entry in before.entries.items() if index != INDEX}
        if wanted:
            entries[INDEX] = wanted
        after = before._replace(entries=entries)

        result = {"changed": after != before}
        result["diff"] = {"before": describe(before), "after": describe(after)}
        if wanted:
            result.update(start_sector=wanted.start, sectors=wanted.size)
        if check_mode:
            return result
        if after != before:
            if INDEX in before.entries:
                delete_entry(path, INDEX)
            if wanted:
                add_entry(path, INDEX, wanted)
        # The kernel's view may lag behind the card, if an earlier attempt was cut off in between.
        result["changed"] |= update_kernel(card, wanted)
        result.update(prove(card, after, wanted))
        return result


def update_kernel(card, wanted):
    """Bring the kernel's view of partition 2 in line; tells whether that changed anything."""
    known = card.kernel_extent(INDEX)
    expected = (wanted.start, wanted.size) if wanted else None
    if known == expected:
        return False
    if known:
        # `partx --update` lets a partition be that has gone from the table.
        card.drop_partition(INDEX)
    if wanted:
        card.update_partitions()
    return True


def prove(card, expected, wanted):
    """Demand the expected table on the card, and the partition in the kernel's view."""
    found = read_table(card.path)
    if found != expected:
        raise Failure(f"the card's table is not what was written: {describe(found)!r}")
    extent = card.kernel_extent(INDEX)
    if not wanted:
        if extent:
            raise Failure(f"partition {INDEX} is gone from the card, the kernel still has it")
        return {}
    if extent != (wanted.start, wanted.size):
        raise Failure(f"the kernel sees partition {INDEX} at {extent}, not as it is on the card")
    path = card.partition(INDEX)
    size = size_of_path(path)
    if size != wanted.size * SECTOR:
        raise Failure(f"{path} has {size} bytes, it should have {wanted.size * SECTOR}")
    return {"partition": path}


def main():
    module = AnsibleModule(
        argument_spec={
            **piseduce_card.ARGUMENTS,
            "state": {"type": "str", "choices": ["present", "absent"], "required": True},
            "disk_id": {"type": "str", "required": True},
            "start_sector": {"type": "int"},
            "image_sectors": {"type": "int"},
            "size_bytes": {"type": "int", "default": 0},
        },
        required_if=[("state", "present", ("start_sector", "image_sectors"))],
        supports_check_mode=True,
    )
    guarded(module, lambda: partition(module.params, module.check_mode))


if __name__ == "__main__":
    main()
