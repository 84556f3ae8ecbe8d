"""The raspbian family: command line and hosts file."""

from pathlib import Path

import ansible.module_utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
MODULE_UTILS = str(ROOT / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils import (  # noqa: E402 (found through the lines above)
    piseduce_process,
    piseduce_raspbian,
)


class TestRaspbianTexts:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("root=/dev/mmcblk0p2 rootwait\n", "root=/dev/mmcblk0p2 rootwait\n"),
            ("root=A init=/usr/lib/raspi-config/init_resize.sh\n", "root=A\n"),
            ("root=A init=/usr/lib/raspberrypi-sys-mods/firstboot b\n", "root=A b\n"),
            ("root=A quiet resize splash\n", "root=A quiet splash\n"),
            ("root=A init=/sbin/other\n", "root=A init=/sbin/other\n"),
            ("root=A video=resize:1 noresize\n", "root=A video=resize:1 noresize\n"),
            (
                "root=A systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot "
                "systemd.unit=kernel-command-line.target b",
                "root=A b\n",
            ),
        ],
    )
    def test_command_line_loses_what_the_first_boot_would_do(self, before, after):
        assert piseduce_raspbian.boot_arguments(before.encode()) == after.encode()

    @pytest.mark.parametrize("line", ["", "\n", "quiet\n", "root=/dev/nfs nfsroot=1.2.3.4:/nfs\n"])
    def test_command_line_without_a_root_on_the_card_is_refused(self, line):
        with pytest.raises(piseduce_process.Failure, match="names no root file system"):
            piseduce_raspbian.boot_arguments(line.encode())

    @given(st.lists(st.sampled_from(["root=A", "resize", "b", "init=/x/firstboot", "é"])))
    def test_cleaned_command_line_stays_as_it_is(self, words):
        line = " ".join(["root=X", *words]).encode()
        once = piseduce_raspbian.boot_arguments(line)
        assert piseduce_raspbian.boot_arguments(once) == once

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("", "127.0.1.1\tn\n"),
            ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1\tn\n"),
            ("127.0.1.1 a\n::1 b\n127.0.1.1 c\n", "127.0.1.1\tn\n::1 b\n"),
            ("# 127.0.1.1 a\n127.0.1.10 b", "# 127.0.1.1 a\n127.0.1.10 b\n127.0.1.1\tn\n"),
        ],
    )
    def test_hosts_names_this_host_once(self, before, after):
        assert piseduce_raspbian.hosts_with(before, "n") == after
        assert piseduce_raspbian.hosts_with(after, "n") == after
