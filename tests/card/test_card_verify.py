"""card_verify: proves what is on the card, and finds what is not."""

import json
import re
from pathlib import Path

import pytest

from . import image as images
from .conftest import MIB


def test_card_with_the_image_passes(written, run_module, check_options):
    run = run_module("card_verify", device=written.device, **check_options)
    assert not run.failed, run.message
    assert not run.result["changed"]
    assert run.result["verified_bytes"] > 6 * MIB


def test_blank_card_fails(card, run_module, check_options):
    run = run_module("card_verify", device=card.device, **check_options)
    assert run.failed
    assert "the card differs from the block map in bytes 0 to" in run.message


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_flipped_bit_is_found_with_its_range(written, run_module, check_options, published, place):
    text = (published / "debian" / "image.bmap").read_text()
    ranges = re.findall(r"<Range[^>]*>\s*(\d+)(?:-(\d+))?", text)
    index = {"first": 0, "middle": len(ranges) // 2, "last": len(ranges) - 1}[place]
    first, last = int(ranges[index][0]), int(ranges[index][1] or ranges[index][0])
    offset = last * 4096 + 100
    written.overwrite(offset, bytes([written.read(offset, 1)[0] ^ 1]))
    run = run_module("card_verify", device=written.device, **check_options)
    assert run.failed
    assert f"bytes {first * 4096} to {last * 4096 + 4095}" in run.message
    assert f"(range {index + 1} of {len(ranges)})" in run.message


def ranges_of(published):
    return list(images.mapped(published / "debian"))


def test_sample_finds_damage_in_the_table_and_in_the_file_systems_structures(
    written, run_module, check_options, published
):
    run = run_module("card_verify", device=written.device, mode="sample", **check_options)
    assert not run.failed, run.message
    chosen = run.result["sampled_ranges"]
    count = len(ranges_of(published))
    assert run.result["ranges"] == len(chosen)
    assert -(-count // 10) <= len(chosen) < count
    for offset in (100, images.BOOT_START * 512 + 100, images.ROOT_START * 512 + 1100):
        good = written.read(offset, 1)
        written.overwrite(offset, bytes([good[0] ^ 1]))
        run = run_module("card_verify", device=written.device, mode="sample", **check_options)
        assert "the card differs from the block map" in run.message
        written.overwrite(offset, good)


def test_off_reads_nothing_and_says_that_it_was_skipped(card, run_module, check_options):
    run = run_module("card_verify", device=card.device, mode="off", **check_options)
    assert not run.failed
    assert run.result["skipped"]
    assert "not read back" in run.message


def test_cache_of_the_device_does_not_hide_what_is_on_the_card(written, run_module, check_options):
    offset = images.ROOT_START * 512 + 1024
    with Path(written.device).open("rb") as device:
        device.seek(offset)
        good = device.read(4096)  # now it is in the page cache
        with written.path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes(byte ^ 0xFF for byte in good))
        run = run_module("card_verify", device=written.device, **check_options)
    assert run.failed
    assert "differs" in run.message


def test_bytes_outside_the_image_do_not_matter(written, run_module, check_options):
    written.overwrite(80 * MIB, b"other")
    run = run_module("card_verify", device=written.device, **check_options)
    assert not run.failed, run.message


def test_other_disk_id_fails(written, run_module, check_options):
    check_options["disk_id"] = "0xdeadbeef"
    run = run_module("card_verify", device=written.device, **check_options)
    assert run.failed
    assert "disk id is 0xc0ffee01, the image's is 0xdeadbeef" in run.message


def test_card_smaller_than_the_image_fails(make_card, run_module, check_options):
    card = make_card(24 * MIB)
    run = run_module("card_verify", device=card.device, **check_options)
    assert run.failed
    assert f"has {24 * MIB} bytes" in run.message


def test_half_written_card_fails(
    written, start_module, run_module, server, copy_options, check_options, published
):
    server.stall_after = (published / "debian" / "image.img.zst").stat().st_size // 2
    module = start_module("card_write", device=written.device, **copy_options)
    assert server.stalled.wait(30)
    module.kill()
    module.wait()
    run = run_module("card_verify", device=written.device, **check_options)
    assert run.failed


def test_progress_ends_with_hundred(written, run_module, check_options, progress, manager):
    run = run_module("card_verify", device=written.device, progress=progress, **check_options)
    assert not run.failed, run.message
    while json.loads(manager.recv(2000))["percent"] != 100:
        pass
