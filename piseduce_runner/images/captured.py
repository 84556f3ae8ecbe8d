"""From the copy of a node's card to a disk image that an environment can be made of.

The copy is somebody else's, and its power was cut: nothing of it is mounted or run. What is its
users' goes, the file system is made small, and both parts are put together again as a disk with the
same id and the same first sectors, by which the system finds its root.
"""

import os
import struct
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.images.boot_partition import clean_boot_partition
from piseduce_runner.images.content import Volume
from piseduce_runner.images.ext4 import Ext4, read_ext4, used_of_ext4
from piseduce_runner.images.ext4_files import Ext4Files
from piseduce_runner.images.fat import read_fat
from piseduce_runner.images.forget import forget
from piseduce_runner.images.image_file import SECTOR, ImageFile
from piseduce_runner.images.partition_table import Kind, Partition, Table, is_disk, mbr
from piseduce_runner.images.scratch import check_room
from piseduce_runner.images.shrink import repair, shrink
from piseduce_runner.images.steps import Progress

HEAD, ROOT = "head.img", "root.img"
"""The two files of a copy, as the role `capture_card` names them."""
TOOLS = ("zstd", "debugfs", "dumpe2fs", "e2fsck", "resize2fs", "mcopy", "mdel", "mdir")
_ENTRY, _SIZE_IN_ENTRY, _ENTRIES = 16, 12, 446
# What is kept of a picore system is packed in mydata.tgz, with keys and passwords.
_PACKED = ("picore",)


def check_family(family: str) -> None:
    """Raises UserError for a family whose systems cannot be made nobody's."""
    if family in _PACKED:
        raise UserError(
            f"a {family} system cannot be captured: it keeps its users' files, with their keys and "
            "passwords, packed in an archive; take its image from the card, and `env add` it"
        )


def make_image(folder: Path, progress: Progress) -> Path:
    """The disk image made of the two files in `folder`, which are used up. Raises UserError."""
    head, root = folder / HEAD, folder / ROOT
    partition = _root_partition(head)
    progress.step("checking the copy", 4)
    repair(root)
    progress.at(1)
    forget(Ext4Files(root))
    _clean_boot(head)
    progress.at(2)
    ext4 = _ext4_in(root)
    blocks = shrink(root, ext4.block_bytes, ext4.blocks)
    progress.at(4)
    sectors = blocks * ext4.block_bytes // SECTOR
    _join(head, root, partition.start, sectors, progress)
    root.unlink()
    return head


def _root_partition(head: Path) -> Partition:
    """The root partition by the table in `head`."""
    with head.open("rb") as file:
        sector = file.read(SECTOR)
    table = mbr(sector) if is_disk(sector) else Table(Kind.MBR, "", ())
    if [one.number for one in table.partitions] != [1, 2]:
        raise UserError("the card has no partition table with a partition 1 and a partition 2")
    return table.partitions[1]


def _clean_boot(head: Path) -> None:
    with head.open("rb") as file:
        image = ImageFile("the card", file.fileno(), head.stat().st_size)
        partition = mbr(image.read(0, SECTOR)).partitions[0]
        fat = read_fat(image, partition)
        if fat is None:
            raise UserError("the boot partition of the card holds no FAT file system")
        clean_boot_partition(head, Volume(image, partition, fat))


def _ext4_in(root: Path) -> Ext4:
    with root.open("rb") as file:
        size = root.stat().st_size
        whole = Partition(2, 0, size // SECTOR, "83")
        ext4 = read_ext4(ImageFile("the card", file.fileno(), size), whole)
    if ext4 is None:
        raise UserError("the root partition of the card holds no ext4 file system")
    return ext4


def _join(head: Path, root: Path, start: int, sectors: int, progress: Progress) -> None:
    """Append the root file system to `head`, at sector `start`, and say its size in the table."""
    check_room(head.parent, root.stat().st_blocks * 512)
    progress.step("joining the parts", sectors * SECTOR)
    with head.open("r+b") as target, root.open("rb") as source:
        entry = _ENTRIES + _ENTRY  # of partition 2
        os.pwrite(target.fileno(), struct.pack("<I", sectors), entry + _SIZE_IN_ENTRY)
        os.ftruncate(target.fileno(), (start + sectors) * SECTOR)
        partition = Partition(2, 0, sectors, "83")
        whole = ImageFile("the card", source.fileno(), sectors * SECTOR)
        ext4 = read_ext4(whole, partition)
        # Only what is in use: of what was removed, nothing is to be found beside it.
        for first, behind in used_of_ext4(whole, partition, ext4):
            for offset, data in whole.data(first, behind):
                os.pwrite(target.fileno(), data, start * SECTOR + offset)
                progress.at(offset + len(data))
