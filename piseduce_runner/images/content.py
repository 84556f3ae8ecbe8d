"""Files in an image's partitions, read without mounting anything, which needs no root."""

import re
from dataclasses import dataclass
from functools import cached_property

from piseduce_runner.images import tools
from piseduce_runner.images.ext4 import Ext4
from piseduce_runner.images.fat import Fat
from piseduce_runner.images.image_file import ImageFile
from piseduce_runner.images.partition_table import Partition

_LONGEST = 65536  # bytes of a file that are read; the files meant have some hundred
_VALUE = re.compile(r"""([A-Z_]+)=(?:"([^"]*)"|'([^']*)'|(.*))""")


@dataclass(frozen=True)
class Volume:
    """A partition with a file system that we know."""

    image: ImageFile
    partition: Partition
    system: Fat | Ext4

    def has(self, path: str) -> bool:
        """Whether there is a file or folder of this path (without a slash in front)."""
        if isinstance(self.system, Fat):
            return path.lower() in self._names
        return b"Inode:" in self._debugfs(f"stat /{path}")

    def read(self, path: str) -> str:
        """The beginning of a text file; an empty text if there is none."""
        if isinstance(self.system, Fat):
            data = self._mtools("mcopy", f"::/{path}", "-") if self.has(path) else b""
        else:
            data = self._debugfs(f"cat /{path}")
        return data.decode(errors="replace")

    @cached_property
    def _names(self) -> frozenset[str]:
        """Of a FAT's root folder, in lower case: FAT keeps case and does not tell it apart."""
        lines = self._mtools("mdir", "-b", "-a", "::/").decode(errors="replace").splitlines()
        return frozenset(line.removeprefix("::/").rstrip("/").lower() for line in lines)

    def _mtools(self, tool: str, *arguments: str) -> bytes:
        place = f"{self.image.path}@@{self.partition.first_byte}"
        command = [tool, "-i", place, *arguments]
        return tools.output(command, keep=self.image.descriptor, limit=_LONGEST)

    def _debugfs(self, request: str) -> bytes:
        place = f"{self.image.path}?offset={self.partition.first_byte}"
        command = ["debugfs", "-R", request, place]
        return tools.output(command, keep=self.image.descriptor, limit=_LONGEST)


def os_release(root: Volume) -> dict[str, str]:
    """What /etc/os-release says (os-release(5)); empty if the system has none.

    debugfs follows no link, and /etc/os-release usually is one.
    """
    text = root.read("usr/lib/os-release") or root.read("etc/os-release")
    values = {}
    for line in text.splitlines():
        if match := _VALUE.fullmatch(line.strip()):
            values[match[1]] = match[2] or match[3] or match[4] or ""
    return values


def mounted_boot_directory(root: Volume) -> str | None:
    """Where /etc/fstab mounts the boot partition: /boot or /boot/firmware; None if it does not."""
    for line in root.read("etc/fstab").splitlines():
        words = line.split()
        if words[1:2] in (["/boot"], ["/boot/firmware"]) and words[2:3] in (["vfat"], ["auto"]):
            return words[1]
    return None
