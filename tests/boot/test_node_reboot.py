"""A restart is asked for and not awaited; the boot id tells later whether it happened."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import LAUNCHER, PROJECT

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.fixture
def node(system):
    """A system on which `reboot` writes a line, and does nothing else."""
    reboot = system.root / "usr/sbin/reboot"
    reboot.unlink(missing_ok=True)
    reboot.write_text("#!/bin/sh\necho rebooted >> /rebooted\n")
    reboot.chmod(0o755)
    return system


def test_the_result_names_the_start_that_ends(module, node):
    result = module("node_reboot", inside=node.inside, delay=0)
    assert result["changed"]
    assert result["boot_id"] == BOOT_ID
    assert result["remember"] == {"boot_id": BOOT_ID}
    while not (node.root / "rebooted").exists():
        pass


def test_the_restart_outlives_the_session_and_holds_none_of_its_streams(node):
    """The session ends with its process group, as one of SSH does, before the restart comes."""
    files = (str(PROJECT / "module_utils"), str(PROJECT / "library" / "node_reboot.py"))
    session = subprocess.Popen(
        [*node.inside, sys.executable, "-c", LAUNCHER, *files],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    output, _nothing = session.communicate('{"delay": 2}')  # ends when nobody holds the pipe
    assert BOOT_ID in output
    assert not (node.root / "rebooted").exists()
    while not (node.root / "rebooted").exists():
        pass


def test_check_mode_restarts_nothing(module, node):
    assert module("node_reboot", check=True, inside=node.inside, delay=0)["changed"]
    assert module("node_reboot", inside=node.inside, delay=1)["changed"]
    while not (node.root / "rebooted").exists():
        pass
    assert (node.root / "rebooted").read_text() == "rebooted\n"  # the one that was asked for
