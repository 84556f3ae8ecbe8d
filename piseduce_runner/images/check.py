"""Whether an environment on the disk is still the one that was made."""

import hashlib

import ansible.module_utils

from piseduce_runner.environments import DESCRIPTION, Environment, verify_files
from piseduce_runner.errors import UserError
from piseduce_runner.images.block_map import Cutter
from piseduce_runner.images.decompress import Decompressed, Format
from piseduce_runner.images.image_file import SECTOR
from piseduce_runner.images.partition_table import is_disk, mbr
from piseduce_runner.images.steps import SILENT, Progress
from piseduce_runner.paths import ansible_dir

# The nodes' own reader of block maps: what it does not take could not be deployed.
ansible.module_utils.__path__.append(str(ansible_dir() / "module_utils"))
from ansible.module_utils import piseduce_bmap  # noqa: E402 (found through the line above)
from ansible.module_utils.piseduce_process import Failure  # noqa: E402

_STEP = 1 << 20


def check_environment(env: Environment, progress: Progress = SILENT) -> None:
    """Read all of an environment: its files against their digests, the image against its block map,
    and its partition table against the description.

    Raises UserError that names the file and what is wrong with it.
    """
    verify_files(env)
    image, block_map = env.folder / env.image, env.folder / env.block_map
    try:
        found = piseduce_bmap.parse(block_map.read_bytes())
    except Failure as error:
        raise UserError(f"{block_map}: {error}") from error
    if (found.image_bytes, found.mapped_bytes) != (env.image_bytes, env.mapped_bytes):
        raise UserError(f"{block_map}: is of an image of another size")
    with image.open("rb") as packed, Decompressed(packed, Format.ZSTD, str(image)) as stream:
        progress.step(f"checking {env.name}", env.image_bytes)
        _compare(env, found, stream, progress)


def _compare(
    env: Environment, found: "piseduce_bmap.BlockMap", stream: Decompressed, progress: Progress
) -> None:
    image = env.folder / env.image
    pieces, digest, compared, at = Cutter(found.ranges), hashlib.sha256(), 0, 0
    while data := memoryview(stream.read(_STEP)):
        if at == 0:
            _compare_table(env, bytes(data[:SECTOR]))
        for first, behind, complete in pieces.within(at, at + len(data)):
            digest.update(data[first - at : behind - at])
            if not complete:
                continue
            part = found.ranges[compared]
            if digest.hexdigest() != part.digest:
                raise UserError(
                    f"{image}: differs from its block map in bytes {part.start} to {part.end - 1}"
                )
            compared, digest = compared + 1, hashlib.sha256()
        at += len(data)
        progress.at(at)
    if at != env.image_bytes or compared != len(found.ranges):
        raise UserError(f"{image}: has {at} bytes when unpacked, not {env.image_bytes}")


def _compare_table(env: Environment, sector: bytes) -> None:
    table = mbr(sector) if is_disk(sector) else None
    parts = {part.number: (part.start, part.sectors) for part in table.partitions} if table else {}
    expected = {
        env.boot_partition: (env.boot_start_sector, env.boot_sectors),
        env.root_partition: (env.root_start_sector, env.root_sectors),
    }
    if table is None or table.disk_id != env.disk_id or not expected.items() <= parts.items():
        raise UserError(
            f"{env.folder / env.image}: its partition table is not the one in {DESCRIPTION}"
        )
