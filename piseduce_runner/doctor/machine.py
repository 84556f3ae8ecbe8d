"""The manager itself: its address, clock, room, and programs."""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from piseduce_runner.doctor.findings import Finding, ok, problem, warning
from piseduce_runner.images import tools
from piseduce_runner.run_folder import runtime_folder

_MIB = 1 << 20
_GIB = 1 << 30
# Without the first nothing can be deployed, without the others no environment can be made.
_NEEDED = {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "openssl": "openssl"}


def check_address(address: str) -> list[Finding]:
    """The manager's address on the cluster's network is one of this machine's."""
    check = "manager-address"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        said = f"this machine does not have the address: {error.strerror}"
        remedy = "give the interface its address, or correct piseduce_manager_address"
        return [problem(check, address, said, remedy)]
    return [ok(check, address, "it is an address of this machine")]


def mac_of(address: str) -> str | None:
    """The MAC address of the interface that has the IPv4 `address`; None if it is not known."""
    if not shutil.which("ip"):
        return None
    done = subprocess.run(
        ["ip", "-json", "-4", "address", "show"], capture_output=True, text=True, timeout=10
    )
    for interface in json.loads(done.stdout or "[]"):
        if any(one.get("local") == address for one in interface.get("addr_info", [])):
            # The loopback's is all zeros.
            mac = interface.get("address", "").lower()
            return mac if mac.strip("0:") else None
    return None


def check_space(folder: Path, needed: int, comfortable: int, what: str) -> Finding:
    """Whether there are `needed` bytes free at `folder`, or better `comfortable` ones.

    Where the folder is not there yet, it is the nearest one above it that counts.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    amount = f"{free / _GIB:.1f} GiB" if free >= _GIB else f"{free // _MIB} MiB"
    message = f"{amount} free for {what}"
    if free < needed:
        return problem("free-space", str(folder), message, "make room")
    if free < comfortable:
        return warning("free-space", str(folder), message, "make room before it runs out")
    return ok("free-space", str(folder), message)


def check_spaces(site: Path) -> list[Finding]:
    """Room for the store and the logs, for environments, and for what runs of Ansible need."""
    return [
        check_space(site / "state", 64 * _MIB, 512 * _MIB, "the store and the logs"),
        check_space(site / "environments", 64 * _MIB, 2 * _GIB, "environments"),
        check_space(runtime_folder(), 16 * _MIB, 64 * _MIB, "runs of Ansible"),
    ]


def check_clock(inventory: Path) -> list[Finding]:
    """The clock is not behind what has happened: a Pi has none that runs without power.

    Claims, reservations and the journal live by it.
    """
    check, now = "clock", time.time()
    for file in (Path(__file__), inventory, *inventory.iterdir()):
        ahead = file.stat().st_mtime - now
        if ahead > 60:
            said = f"it says {time.ctime(now)}, but {file} was written {time.ctime(now + ahead)}"
            return [problem(check, "clock", said, "set it, and let NTP keep it (timedatectl)")]
    return [ok(check, "clock", f"it says {time.ctime(now)}")]


def check_tools() -> list[Finding]:
    """The programs that are started on the manager are installed."""
    findings = []
    for tool, package in (_NEEDED | tools.PACKAGES).items():
        if shutil.which(tool, path=tools.environment()["PATH"]):
            findings.append(ok("tool", tool, "it is installed"))
            continue
        if tool in _NEEDED:
            level, use = problem, "nothing can be deployed without it"
        else:
            level, use = warning, "no environment can be made without it"
        remedy = f"install the Debian package {package}"
        findings.append(level("tool", tool, f"it is not installed: {use}", remedy))
    return findings


def check_folder_writable(folder: Path) -> list[Finding]:
    """The site's folder for the store can be written to, or made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return [ok("state-folder", str(folder), "it can be written to")]
    said = f"we cannot write to {existing}"
    remedy = "run piseduce-run as its owner (root), or mend its owner and mode"
    return [problem("state-folder", str(folder), said, remedy)]
