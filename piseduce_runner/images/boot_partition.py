"""The boot partition of a captured card: what it says of its old users, and its dirty mark."""

import os
import subprocess
import tempfile
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.images import tools
from piseduce_runner.images.content import Volume
from piseduce_runner.images.fat import Fat, used_of_fat

# What sets users, passwords and networks at a first boot: Raspberry Pi OS, its Imager, cloud-init.
_SECRETS = ("userconf", "userconf.txt", "custom.toml", "firstrun.sh", "wpa_supplicant.conf")
USER_DATA = "user-data"
_NO_USERS = b"#cloud-config\n"
_SECONDS = 60
# Where Linux marks a FAT as mounted (fs/fat/inode.c, fat_set_state), and the mark.
_STATE = {12: 0x25, 16: 0x25, 32: 0x41}
_DIRTY = 1


def clean_boot_partition(file: Path, boot: Volume) -> list[str]:
    """Take out users, passwords and keys; the names of what was changed. Raises UserError.

    `file` is the writable file that `boot` was found in.
    """
    place = f"{file}@@{boot.partition.first_byte}"
    changed = [name for name in (*_SECRETS, USER_DATA) if boot.has(name)]
    for name in changed:
        _mtools("mdel", "-i", place, f"::/{name}")
    _zero_free(file, boot)
    if USER_DATA in changed:
        with tempfile.NamedTemporaryFile() as source:
            source.write(_NO_USERS)
            source.flush()
            _mtools("mcopy", "-i", place, source.name, f"::/{USER_DATA}")
    _unmark(file, boot)
    return changed


def _zero_free(file: Path, boot: Volume) -> None:
    """Overwrite what no file uses: clusters are smaller than what an environment is made of."""
    with file.open("r+b") as target:
        image, partition = boot.image, boot.partition
        behind = partition.first_byte
        for start, end in (*used_of_fat(image, partition, boot.system), (partition.end_byte, 0)):
            for offset, data in image.data(behind, start):
                os.pwrite(target.fileno(), bytes(len(data)), offset)
            behind = end


def _unmark(file: Path, boot: Volume) -> None:
    """The power was cut while it was mounted; no system should complain of that for ever."""
    assert isinstance(boot.system, Fat)
    place = boot.partition.first_byte + _STATE[boot.system.bits]
    descriptor = os.open(file, os.O_RDWR)
    try:
        (state,) = os.pread(descriptor, 1, place)
        os.pwrite(descriptor, bytes([state & ~_DIRTY]), place)
    finally:
        os.close(descriptor)


def _mtools(*command: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=tools.environment(),
        timeout=_SECONDS,
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-300:]
        raise UserError(f"{command[0]} failed on the boot partition of the card: {said}")
