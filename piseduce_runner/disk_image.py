"""Raw disk images: the partition table that says where a Raspberry Pi's system lies."""

import json
import subprocess
from pathlib import Path

from piseduce_runner.errors import UserError

SECTOR = 512  # bytes; the unit of an MBR, whatever the device
FAT_TYPES = ("4", "6", "b", "c", "e")  # partition types of an MBR
LINUX_TYPE = "83"


def read_partition_table(image: Path) -> dict[str, str | int]:
    """The layout keys of environment.yml, from the MBR of a raw disk image.

    Raises UserError if this is not an MBR with a FAT and a Linux partition that lie in the file.
    """
    done = subprocess.run(
        ["sfdisk", "--json", str(image)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise UserError(f"{image}: not a disk image: it has no partition table")
    table = json.loads(done.stdout)["partitiontable"]
    if table["label"] != "dos":
        raise UserError(
            f"{image}: its partition table is {table['label'].upper()}; "
            "the Raspberry Pi's images have an MBR (DOS) table"
        )
    partitions = sorted(table.get("partitions", []), key=lambda partition: partition["start"])
    types = [partition["type"] for partition in partitions]
    if len(types) != 2 or types[0] not in FAT_TYPES or types[1] != LINUX_TYPE:
        raise UserError(
            f"{image}: expected a FAT boot partition and a Linux root partition, "
            f"found {len(types)} partition(s)" + (f" of type {', '.join(types)}" if types else "")
        )
    size = image.stat().st_size
    if size % SECTOR:
        raise UserError(f"{image}: truncated: {size} bytes are no whole number of sectors")
    end = max(partition["start"] + partition["size"] for partition in partitions) * SECTOR
    if end > size:
        raise UserError(
            f"{image}: truncated: its partitions end at {end} bytes, the file has only {size}"
        )
    layout: dict[str, str | int] = {"disk_id": table["id"]}
    for role, partition in zip(("boot", "root"), partitions, strict=True):
        # "/path/to/image.img2", or "...p2" after a digit
        number = partition["node"].removeprefix(table["device"]).removeprefix("p")
        layout[f"{role}_partition"] = int(number)
        layout[f"{role}_start_sector"] = partition["start"]
        layout[f"{role}_sectors"] = partition["size"]
    return layout
