"""card_write: what is on the card afterwards."""

import json
from pathlib import Path

from . import image as images
from .conftest import MIB
from .image import assert_holds_image, mapped


def test_card_holds_the_image_and_the_kernel_its_partitions(
    card, run_module, copy_options, published
):
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message
    assert run.result["changed"]
    assert_holds_image(card, published)
    assert (
        images.call("blkid", "-o", "value", "-s", "LABEL", f"{card.device}p2").stdout == "rootfs\n"
    )
    images.call("e2fsck", "-fn", f"{card.device}p2")
    images.call("fsck.vfat", "-n", f"{card.device}p1")


def test_holes_of_the_image_are_not_written(card, run_module, copy_options, published):
    run = run_module("card_write", device=card.device, **copy_options)
    total = sum(end - start for start, end, _ in mapped(published / "debian"))
    assert run.result["mapped_bytes"] == total
    assert total <= run.result["written_bytes"] < total * 1.2 < copy_options["image_bytes"]
    # Allocated on a sparse file means written.
    assert card.path.stat().st_blocks * 512 < total * 1.2 + MIB


def test_old_contents_are_discarded(card, run_module, copy_options):
    end = card.path.stat().st_size - MIB
    card.overwrite(end, b"secret of the last user")
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.result["discarded"] == ""
    assert card.read(end, 6) == bytes(6)


def test_second_run_begins_again(card, run_module, copy_options, published):
    run_module("card_write", device=card.device, **copy_options)
    start, end, _ = list(mapped(published / "debian"))[-1]
    card.overwrite(start, b"\xff" * 512)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.result["changed"]
    assert_holds_image(card, published)


def test_partitions_of_the_last_system_are_not_seen_any_more(card, run_module, copy_options):
    script = "label: dos\nstart=2048,size=4096,type=83\nstart=8192,size=4096,type=83\nstart=16384\n"
    images.call("sfdisk", "--quiet", "--no-reread", card.device, input=script)
    images.call("partx", "--update", card.device)
    assert Path(f"{card.device}p3").exists()
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message
    assert not Path(f"{card.device}p3").exists()
    assert int(images.call("blockdev", "--getsz", f"{card.device}p2").stdout) == images.ROOT_SECTORS


def test_partitions_are_dropped_though_their_table_is_gone(card, run_module, copy_options):
    script = "label: dos\nstart=2048,size=4096,type=83\nstart=8192,size=4096,type=83\n"
    images.call("sfdisk", "--quiet", "--no-reread", card.device, input=script)
    images.call("partx", "--update", card.device)
    card.overwrite(0, bytes(512))
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message


def test_what_an_earlier_attempt_left_mounted_is_unmounted(
    card, run_module, copy_options, namespace
):
    run_module("card_write", device=card.device, **copy_options)
    images.call(*namespace, "mkdir", "-p", "/mnt/piseduce/root")
    images.call(*namespace, "mount", f"{card.device}p2", "/mnt/piseduce/root")
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message
    assert run.result["unmounted"] == ["/mnt/piseduce/root"]


def test_progress_is_sent_and_ends_with_hundred(card, run_module, copy_options, progress, manager):
    run = run_module("card_write", device=card.device, progress=progress, **copy_options)
    assert not run.failed, run.message
    percents = []
    while not percents or percents[-1] != 100:
        message = json.loads(manager.recv(2000))
        assert message["token"] == "a-token"  # noqa: S105
        assert message["node"] == "node-1"
        percents.append(message["percent"])
    assert percents[0] == 0
    assert percents == sorted(percents)
    assert message["rate"] > 0


def test_progress_without_listener_is_no_error(card, run_module, copy_options, progress, manager):
    manager.close()
    run = run_module("card_write", device=card.device, progress=progress, **copy_options)
    assert not run.failed, run.message


def test_check_mode_writes_nothing(card, run_module, copy_options):
    card.overwrite(0, b"still here")
    run = run_module("card_write", device=card.device, check=True, **copy_options)
    assert not run.failed, run.message
    assert run.result["changed"]
    assert card.read(0, 10) == b"still here"


def test_image_that_ends_within_a_block_of_the_card_is_written_whole(
    card, run_module, copy_options, check_options, server, raw_image, tmp_path
):
    odd = tmp_path / "odd.img"
    odd.write_bytes(raw_image.read_bytes() + b"the end" * 100)
    environment = images.publish(odd, tmp_path / "odd")
    for options in (copy_options, check_options):
        options["url"] = f"{server.url}/own/odd"
        options.update({key: environment[key] for key in ("block_map_sha256", "image_bytes")})
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message
    assert not run.result["direct"]
    run = run_module("card_verify", device=card.device, **check_options)
    assert not run.failed, run.message
    assert card.read(copy_options["image_bytes"] - 7, 8) == b"the end\0"
