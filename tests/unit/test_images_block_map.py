"""What a block map leaves out must not matter on a card that is full of something else."""

import filecmp
import hashlib
import os
import subprocess
from pathlib import Path

import ansible.module_utils
import disk_images
import pytest
from disk_images import MIB, SECTOR, Recipe, call

from piseduce_runner.errors import UserError
from piseduce_runner.images.add import Wishes, add_environment
from piseduce_runner.images.fat import read_fat, used_of_fat
from piseduce_runner.images.partition_table import read_table
from piseduce_runner.images.steps import SILENT
from piseduce_runner.images.unpack import raw_image
from piseduce_runner.paths import ansible_dir

ansible.module_utils.__path__.append(str(ansible_dir() / "module_utils"))
from ansible.module_utils import piseduce_bmap  # noqa: E402 (found through the line above)

RASPBIAN = Wishes(name="sample", family="raspbian")


def add(image: Path):
    return add_environment(image, image.parent / "environments", RASPBIAN).environment


def unpacked(environment) -> bytes:
    packed = environment.folder / environment.image
    return subprocess.run(["zstd", "-dc", packed], capture_output=True, check=True).stdout


def block_map(environment):
    return piseduce_bmap.parse((environment.folder / environment.block_map).read_bytes())


def written(environment, card: Path) -> Path:
    """A card full of ones, on which the mapped ranges of the environment were written."""
    content = unpacked(environment)
    found = block_map(environment)
    assert len(content) == environment.image_bytes == found.image_bytes
    assert environment.mapped_bytes == found.mapped_bytes
    card.write_bytes(b"\xff" * (environment.image_bytes + MIB))
    with card.open("r+b") as file:
        for start, end, digest in found.ranges:
            assert hashlib.sha256(content[start:end]).hexdigest() == digest
            file.seek(start)
            file.write(content[start:end])
    return card


def root_files(image: Path, recipe: Recipe, folder: Path) -> Path:
    folder.mkdir()
    call("debugfs", "-R", f"rdump / {folder}", f"{image}?offset={recipe.root_start * SECTOR}")
    return folder


def boot_files(image: Path, recipe: Recipe, folder: Path) -> Path:
    folder.mkdir()
    call("mcopy", "-s", "-i", f"{image}@@{recipe.boot_start * SECTOR}", "::", folder)
    return folder


def same_trees(one: Path, other: Path) -> bool:
    names = sorted(str(p.relative_to(one)) for p in one.rglob("*") if p.is_file())
    assert names, "nothing was read"
    others = sorted(str(p.relative_to(other)) for p in other.rglob("*") if p.is_file())
    _, differ, errors = filecmp.cmpfiles(one, other, names, shallow=False)
    return names == others and not differ and not errors


def check_file_systems(card: Path, recipe: Recipe) -> None:
    call("e2fsck", "-fn", f"{card}?offset={recipe.root_start * SECTOR}")
    boot = card.with_name("boot")
    with card.open("rb") as file:
        file.seek(recipe.boot_start * SECTOR)
        boot.write_bytes(file.read(recipe.boot_sectors * SECTOR))
    call("fsck.vfat", "-n", boot)


OLD = ("-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit,^flex_bg,uninit_bg")
RECIPES = {
    "as Raspberry Pi OS": Recipe(fat_bits=32, boot_sectors=71680, root_start=81920),
    "FAT16 with large clusters": Recipe(
        per_cluster=8,
        boot_sectors=40960,
        root_start=49152,
        mke2fs=("-t", "ext4", "-b", "4096", "-O", "64bit,metadata_csum"),
    ),
    "blocks of 2 KiB, groups together": Recipe(
        mke2fs=("-t", "ext4", "-b", "2048", "-O", "meta_bg,^resize_inode")
    ),
    "ext2": Recipe(mke2fs=("-t", "ext2", "-b", "1024")),
    "partitions that begin anywhere": Recipe(boot_start=63, root_start=8255),
    "FAT12, ext4 of 1 KiB": Recipe(fat_bits=12, per_cluster=4, boot_sectors=7600, mke2fs=OLD),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_card_that_was_full_has_sound_file_systems_with_all_files(
    recipe: Recipe, tmp_path: Path
) -> None:
    image = disk_images.make(tmp_path / "disk.img", recipe)
    environment = add(image)
    card = written(environment, tmp_path / "card")
    check_file_systems(card, recipe)
    assert same_trees(
        root_files(image, recipe, tmp_path / "root1"), root_files(card, recipe, tmp_path / "root2")
    )
    assert same_trees(
        boot_files(image, recipe, tmp_path / "boot1"), boot_files(card, recipe, tmp_path / "boot2")
    )
    assert environment.mapped_bytes < environment.image_bytes * 3 // 4


def test_a_full_image_gives_the_same_map_as_a_sparse_one(tmp_path: Path) -> None:
    sparse = disk_images.make(tmp_path / "disk.img")
    full = tmp_path / "full"
    full.mkdir()
    (full / "disk.img").write_bytes(sparse.read_bytes())
    one, other = add(sparse), add(full / "disk.img")
    assert block_map(one) == block_map(other)
    assert one.mapped_bytes < sparse.stat().st_size // 2


def test_what_was_deleted_does_not_travel(tmp_path: Path) -> None:
    image = disk_images.make(tmp_path / "disk.img", root=disk_images.RASPBIAN | {"key": "S3CRET"})
    offset = disk_images.ROOT_START * SECTOR
    call("debugfs", "-w", "-R", "rm key", f"{image}?offset={offset}")
    assert b"S3CRET" in image.read_bytes()
    assert b"S3CRET" not in unpacked(add(image))


def set_feature(image: Path, request: str) -> None:
    place = f"{image}?offset={disk_images.ROOT_START * SECTOR}"
    call("debugfs", "-w", "-R", request, place)


@pytest.mark.parametrize("request_", ["feature needs_recovery", "set_super_value state 0"])
def test_a_file_system_that_was_not_unmounted_is_mapped_whole(
    request_: str, tmp_path: Path
) -> None:
    image = disk_images.make(tmp_path / "disk.img")
    set_feature(image, request_)
    start, end = disk_images.ROOT_START * SECTOR, image.stat().st_size
    added = add_environment(image, tmp_path / "environments", RASPBIAN)
    assert any(r.start <= start and r.end == end for r in block_map(added.environment).ranges)
    assert "not cleanly unmounted" in added.notes[0]


def used_of_boot(image: Path) -> tuple:
    """The first partition, its FAT, and (first, behind) of what is in use in it."""
    with raw_image(image, image.parent, SILENT) as opened:
        part = read_table(opened).partitions[0]
        fat = read_fat(opened, part)
        return part, fat, list(used_of_fat(opened, part, fat))


def test_a_full_boot_partition_is_mapped_to_its_last_cluster(tmp_path: Path) -> None:
    image = disk_images.make(tmp_path / "disk.img")
    part, fat, _ = used_of_boot(image)
    end = part.first_byte + fat.clusters_at + fat.clusters * fat.cluster_bytes
    filling = tmp_path / "filling"
    filling.write_bytes(b"x" * (fat.clusters * fat.cluster_bytes))
    call("mdel", "-i", f"{image}@@{part.first_byte}", "::*")
    call("mcopy", "-i", f"{image}@@{part.first_byte}", filling, "::")
    assert used_of_boot(image)[2][-1][1] == end


def test_an_ext4_is_mapped_to_its_last_block(tmp_path: Path) -> None:
    image = disk_images.make(tmp_path / "disk.img")
    last = Recipe().root_sectors // 8 - 1
    place = f"{image}?offset={disk_images.ROOT_START * SECTOR}"
    call("debugfs", "-w", "-R", f"setb {last}", place)
    assert block_map(add(image)).ranges[-1].end == image.stat().st_size


def test_a_third_partition_of_unknown_content_is_mapped_whole_and_gaps_where_they_hold_something(
    tmp_path: Path,
) -> None:
    table = Recipe.table + "start=16384, size=8192, type=da\n"
    recipe = Recipe(table=table, root_start=32768)
    image = disk_images.make(tmp_path / "disk.img", recipe)
    with image.open("r+b") as file:  # between the third and the second
        file.seek(26000 * SECTOR)
        file.write(b"something")
    ranges = block_map(add(image)).ranges
    covered = {block for r in ranges for block in range(r.start // 4096, -(-r.end // 4096))}
    assert set(range(16384 // 8, (16384 + 8192) // 8)) <= covered
    assert 26000 // 8 in covered
    assert 30000 // 8 not in covered
    assert set(range(disk_images.BOOT_START // 8)) <= covered


def test_bmaptool_reads_the_map(tmp_path: Path) -> None:
    environment = add(disk_images.make(tmp_path / "disk.img"))
    folder, card = environment.folder, tmp_path / "card"
    raw = tmp_path / "raw"
    raw.write_bytes(unpacked(environment))
    os.truncate(os.open(card, os.O_CREAT | os.O_RDWR), environment.image_bytes)
    call("bmaptool", "copy", "--bmap", folder / "image.bmap", raw, card)
    assert card.read_bytes() == raw.read_bytes()


def test_bigalloc_is_refused(tmp_path: Path) -> None:
    options = ("-t", "ext4", "-b", "4096", "-O", "bigalloc")
    image = disk_images.make(tmp_path / "disk.img", mke2fs=options)
    with pytest.raises(UserError, match=r"partition 2 has the feature bigalloc"):
        add(image)
