"""Faults of a card, as the system that writes to it meets them."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cards
import pytest
from simulated_lab import SimulatedLab
from test_up_and_down import supervisor_of, wait_until

NODE = 1
PLACE = 5_000_000  # a byte of the card


@pytest.fixture(scope="module")
def module_lab(make_lab) -> SimulatedLab:
    lab = make_lab("--nodes", "1")
    cards.insert_nfs_boot_files(lab, NODE)
    return lab


@pytest.fixture
def lab(module_lab: SimulatedLab) -> Iterator[SimulatedLab]:
    """The lab without faults, with node-1 running the deploy OS over a blank card."""
    cards.erase_card(module_lab, NODE)
    module_lab.power(NODE, True)
    module_lab.wait_ssh(NODE)
    yield module_lab
    module_lab.clear_faults()


def write(lab: SimulatedLab, place: int = PLACE, text: str = "written", check: bool = True):
    """Writes a text to the card, down to the device; the completed command."""
    options = f"of=/dev/mmcblk0 bs=64 seek={place} oflag=seek_bytes conv=fsync status=none"
    return lab.ssh(NODE, f"printf {text} | dd {options}", check=check)


def read(lab: SimulatedLab, place: int = PLACE, count: int = 7) -> str:
    """What the card has there, not what the page cache remembers."""
    options = f"if=/dev/mmcblk0 bs=1 skip={place} count={count} status=none"
    script = f"blockdev --flushbufs /dev/mmcblk0 && dd {options} | tr -d '\\0'"
    return lab.ssh(NODE, script).stdout


def size(lab: SimulatedLab) -> int:
    return int(lab.ssh(NODE, "blockdev --getsize64 /dev/mmcblk0").stdout)


def test_a_slow_card(lab):
    lab.fault("card-slow", NODE, rate="8M")
    limits = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")
    number = Path("/sys/block", Path(lab.loop_device(NODE)).name, "dev").read_text().strip()
    if limits.exists():
        assert f"{number} {8 << 20}" in limits.read_text().splitlines()
    write(lab)
    assert read(lab) == "written"
    lab.clear_faults()
    if limits.exists():
        assert not [line for line in limits.read_text().splitlines() if line.startswith(number)]


def test_a_locked_card_refuses_writers(lab):
    lab.fault("card-readonly", NODE)
    assert write(lab, check=False).returncode != 0
    assert read(lab) == ""
    lab.clear_faults()
    write(lab)
    assert read(lab) == "written"


def test_a_lock_outlives_a_power_cycle(lab):
    lab.fault("card-readonly", NODE)
    lab.power(NODE, False)
    lab.wait_booted(NODE, "off")
    lab.power(NODE, True)
    lab.wait_ssh(NODE)
    assert write(lab, check=False).returncode != 0


def test_a_card_with_less_room(lab):
    lab.fault("card-small", NODE, size="64M")
    assert size(lab) == 64 << 20
    too_much = "dd if=/dev/zero of=/dev/mmcblk0 bs=1M seek=63 count=2 conv=fsync status=none"
    assert "No space left" in lab.ssh(NODE, too_much, check=False).stderr
    lab.clear_faults()
    assert size(lab) == 4 << 30
    lab.ssh(NODE, too_much)


def test_writes_to_a_failing_card_are_errors(lab):
    write(lab)
    lab.fault("card-failing", NODE)
    assert "Input/output error" in write(lab, text="another", check=False).stderr
    assert read(lab) == "written"
    lab.clear_faults()
    write(lab, text="another")
    assert read(lab) == "another"


def test_a_card_fails_after_some_bytes(lab):
    lab.fault("card-failing", NODE, after="1M")
    write(lab)
    assert read(lab) == "written"
    lab.ssh(NODE, "dd if=/dev/zero of=/dev/mmcblk0 bs=1M count=2 conv=fsync status=none")
    wait_until(lambda: write(lab, check=False).returncode != 0)


def test_a_pulled_card_has_no_bytes_and_is_not_found_at_the_next_boot(lab):
    write(lab)
    lab.fault("card-pulled", NODE)
    assert size(lab) == 0
    lab.power(NODE, False)
    lab.wait_booted(NODE, "off")
    lab.power(NODE, True)
    lab.wait_ssh(NODE)
    assert lab.ssh(NODE, "test -e /dev/mmcblk0", check=False).returncode == 1
    lab.clear_faults()
    lab.power(NODE, False)
    lab.wait_booted(NODE, "off")
    lab.power(NODE, True)
    lab.wait_ssh(NODE)
    assert read(lab) == "written"
    assert lab.node(NODE).card_file.stat().st_size == 4 << 30


def test_a_bit_flips_after_the_first_write_only(lab):
    lab.fault("card-corrupt", NODE, at=PLACE)
    write(lab)
    wait_until(lambda: read(lab) == "vritten")
    write(lab, text="another")
    assert read(lab) == "another"


def test_a_bit_flips_after_every_write_and_is_mended_when_the_fault_is_cleared(lab):
    lab.fault("card-corrupt", NODE, at=PLACE, times=0)
    for text, spoilt in (("written", "vritten"), ("another", "`nother"), ("written", "vritten")):
        write(lab, text=text)
        wait_until(lambda spoilt=spoilt: read(lab) == spoilt)
    lab.clear_faults()
    assert read(lab) == "written"


def test_by_itself_a_bit_of_the_image_flips(lab, tmp_path):
    image = tmp_path / "image.img"
    packed = cards.environment(lab)
    unpack = ["zstd", "-q", "-d", "--sparse", packed.folder / packed.image, "-o", image]
    subprocess.run(unpack, check=True)
    lab.fault("card-corrupt", NODE)
    cards.insert_image(lab, NODE, image)
    bytes_written = image.stat().st_size
    compare = ["cmp", "--verbose", f"--bytes={bytes_written}", image, lab.node(NODE).card_file]
    wait_until(lambda: subprocess.run(compare, capture_output=True).stdout.count(b"\n") == 1)


def test_nothing_of_the_faults_is_left_when_a_lab_that_died_is_taken_down(module_lab):
    lab = module_lab
    for name in ("card-failing", "card-pulled", "card-readonly"):
        lab.fault(name, NODE)
    lab.fault("http-stall", "manager")
    os.kill(supervisor_of(lab), signal.SIGKILL)
    wait_until(lambda: not lab.folder.is_alive())
    lab.down()
    assert not lab.folder.path.exists()
