"""Which device is the card, and which mounts are of it."""

from pathlib import Path

import ansible.module_utils
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE_UTILS = str(ROOT / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils import (  # noqa: E402 (found through the lines above)
    piseduce_card,
    piseduce_mounts,
    piseduce_process,
)


class TestDevices:
    """Which devices are the card, by what sysfs says of them."""

    @pytest.fixture
    def sysfs(self, tmp_path):
        def make(place, *, bus=None, partition=False):
            real = tmp_path / "devices" / place
            real.mkdir(parents=True)
            if bus:
                (tmp_path / "bus" / bus).mkdir(parents=True)
                (real / "hardware").mkdir()
                (real / "hardware" / "subsystem").symlink_to(tmp_path / "bus" / bus)
                (real / "device").symlink_to(real / "hardware")
            if partition:
                (real / "partition").write_text("1\n")
            link = tmp_path / "179:0"
            link.symlink_to(real)
            return link

        return make

    def test_sd_card_is_the_card(self, sysfs):
        place = sysfs("platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0", bus="mmc")
        piseduce_card.refuse_other_devices("/dev/mmcblk0", place, False)

    def test_device_without_hardware_is_on_no_wrong_bus(self, sysfs):
        piseduce_card.refuse_other_devices("/dev/x", sysfs("virtual/block/x"), False)

    def test_usb_disk_is_not_the_card_unless_told_so(self, sysfs):
        place = sysfs("pci0000:00/usb2/2-1/host0/target0:0:0/0:0:0:0/block/sda", bus="scsi")
        with pytest.raises(piseduce_process.Failure, match="/dev/sda is not an SD card .* usb bus"):
            piseduce_card.refuse_other_devices("/dev/sda", place, False)
        piseduce_card.refuse_other_devices("/dev/sda", place, True)

    def test_ssd_is_not_the_card(self, sysfs):
        place = sysfs("pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1", bus="nvme")
        with pytest.raises(piseduce_process.Failure, match="a disk on the nvme bus"):
            piseduce_card.refuse_other_devices("/dev/nvme0n1", place, False)

    def test_partition_is_not_the_card_whatever_is_allowed(self, sysfs):
        place = sysfs("platform/mmc_host/mmc0/block/mmcblk0/mmcblk0p1", partition=True)
        with pytest.raises(piseduce_process.Failure, match="is a partition"):
            piseduce_card.refuse_other_devices("/dev/mmcblk0p1", place, True)


class TestMounts:
    TEXT = (
        "22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n"
        "36 22 179:2 / /mnt/with\\040blank rw,noatime - ext4 /dev/mmcblk0p2 rw\n"
        "37 22 0:44 / /mnt/boot rw - fuse /dev/zero rw,user_id=0\n"
    )

    def test_mountinfo_is_read_with_its_escapes(self):
        found = piseduce_mounts.parse_mountinfo(self.TEXT)
        assert found[1].point == "/mnt/with blank"
        assert found[1].number == (179, 2)
        assert (found[1].kind, found[1].source) == ("ext4", "/dev/mmcblk0p2")
        assert found[0].options == ["rw", "nosuid"]

    def test_mount_belongs_to_its_device_number(self):
        mount = piseduce_mounts.parse_mountinfo(self.TEXT)[1]
        assert piseduce_mounts.is_of(mount, {(179, 2)})
        assert not piseduce_mounts.is_of(mount, {(179, 1), None})

    def test_served_file_system_without_a_block_device_belongs_to_none(self):
        mount = piseduce_mounts.parse_mountinfo(self.TEXT)[2]
        assert not piseduce_mounts.is_of(mount, {(1, 5)})

    @pytest.mark.parametrize(
        ("point", "below"),
        [("/mnt/p", True), ("/mnt/p/boot", True), ("/mnt/pi", False), ("/mnt", False)],
    )
    def test_below_means_in_the_folder(self, point, below):
        assert piseduce_mounts.is_below(point, "/mnt/p") == below
        assert piseduce_mounts.is_below(point, "/mnt/p/") == below
