"""card_write: downloads that are wrong, and cards that fail."""

import os
import shutil
from pathlib import Path

import pytest

from . import image as images
from .conftest import MIB
from .image import mapped


def test_missing_image_names_the_address_and_the_status(card, run_module, copy_options):
    run = run_module("card_write", device=card.device, image="none.zst", **copy_options)
    assert run.failed
    assert "/debian/none.zst" in run.message
    assert "404" in run.message


def test_manager_that_does_not_answer_is_named(card, run_module, copy_options):
    copy_options["url"] = "http://127.0.0.1:9/debian"
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "cannot fetch http://127.0.0.1:9/debian/image.bmap" in run.message


@pytest.fixture
def own(published, tmp_path, copy_options, server):
    """A copy of the environment that a test may damage."""
    folder = tmp_path / "debian"
    shutil.copytree(published / "debian", folder)
    copy_options["url"] = f"{server.url}/own/debian"
    return folder


def damage(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_block_map_of_another_image_is_refused(card, run_module, copy_options, own):
    damage(own / "image.bmap", 300)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "image.bmap is damaged" in run.message


def test_truncated_download_is_an_error(card, run_module, copy_options, own):
    data = (own / "image.img.zst").read_bytes()
    (own / "image.img.zst").write_bytes(data[: len(data) // 2])
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "cannot decompress" in run.message


def test_damaged_download_is_an_error_and_leaves_no_partitions(card, run_module, copy_options, own):
    data = (own / "image.img.zst").read_bytes()
    damage(own / "image.img.zst", len(data) * 3 // 4)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "cannot decompress" in run.message or "differs from the block map" in run.message
    assert card.read(0, 512) == bytes(512)


def republish(own, image):
    (own / "image.img.zst").unlink()
    images.call("zstd", "-q", str(image), "-o", str(own / "image.img.zst"))


def test_image_that_is_not_the_block_maps_is_an_error(
    card, run_module, copy_options, own, tmp_path, published, raw_image
):
    other = shutil.copy(raw_image, tmp_path / "other.img")
    start = list(mapped(published / "debian"))[-1][0]
    damage(Path(other), start)
    republish(own, other)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert f"differs from the block map in bytes {start} to" in run.message
    assert card.read(0, 512) == bytes(512)


@pytest.mark.parametrize("change", [-MIB, MIB])
def test_image_of_another_length_is_an_error(
    card, run_module, copy_options, own, tmp_path, raw_image, change
):
    other = Path(shutil.copy(raw_image, tmp_path / "other.img"))
    os.truncate(other, copy_options["image_bytes"] + change)
    republish(own, other)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert ("more bytes than" if change > 0 else "its block map says") in run.message


def test_card_that_fails_in_the_middle_is_an_error_with_its_place(
    make_card, run_module, copy_options, namespace
):
    # The file behind the device runs out of room: the device answers with I/O errors from there on.
    images.call(*namespace, "mkdir", "/run/small")
    images.call(*namespace, "mount", "-t", "tmpfs", "-o", "size=8m", "none", "/run/small")
    card = make_card(path="/run/small/card", prefix=namespace)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "writing the card failed at byte" in run.message
    assert "Input/output error" in run.message or "No space" in run.message
