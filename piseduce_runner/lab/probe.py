"""Asks the lab's services for something, as a node would, to prove that they answer."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from piseduce_runner.lab.folder import LabFolder
from piseduce_runner.lab.procfs import NETNS_FOLDER
from piseduce_runner.lab.settings import HTTP_PORT, Settings

HERE = Path(__file__).resolve().parent
PROBE = "probe.txt"  # a file at the top of the TFTP tree, while it is asked for


class NoAnswer(Exception):
    """A service did not answer, or not with what was expected; one line."""


async def ask_manager(lab: LabFolder, settings: Settings, timeout: float = 15.0) -> None:
    """DHCP, TFTP, DNS and HTTP from within the namespace of node-1. NoAnswer: after `timeout` s."""
    limit = time.monotonic() + timeout
    node, server = settings.node(1), settings.manager_address
    environment = next((lab.site / "environments").iterdir())
    path = f"environments/{environment.name}/environment.yml"
    (lab.tftp / PROBE).write_text(lab.tag)
    with tempfile.TemporaryDirectory(dir=lab.path) as scratch:
        lease, copy = Path(scratch, "lease"), Path(scratch, "copy")
        dhcp = ["udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "3", "-T", "1", "-A", "1"]
        await _until(
            limit,
            "dnsmasq gives no address to node-1",
            lambda: _inside(lab, *dhcp, "-s", str(HERE / "udhcpc.sh"), LEASE=str(lease)),
            lambda _: lease.exists() and f"address={node.address}/" in lease.read_text(),
        )
        address = f"{node.address}/{settings.prefix_length}"
        await _inside(lab, "ip", "address", "add", address, "dev", "eth0")
        await _until(
            limit,
            "dnsmasq serves no files by TFTP",
            lambda: _inside(lab, "tftp", "-g", "-r", PROBE, "-l", str(copy), server),
            lambda _: copy.read_text() == lab.tag,
        )
        await _until(
            limit,
            "dnsmasq does not know the name pimaster",
            lambda: _inside(lab, "nslookup", "pimaster", server),
            lambda output: server in output.partition("pimaster")[2],
        )
        await _until(
            limit,
            f"nginx does not serve {path}",
            lambda: _inside(lab, "wget", "-q", "-O", "-", f"http://{server}:{HTTP_PORT}/{path}"),
            lambda output: output == (environment / "environment.yml").read_text("utf-8"),
        )
        await _inside(lab, "ip", "address", "flush", "dev", "eth0", "scope", "global")
    (lab.tftp / PROBE).unlink()


async def _until(
    limit: float, complaint: str, ask: Callable, expected: Callable[[str], bool]
) -> None:
    """Asks until the answer is the expected one. NoAnswer: not before `limit` (monotonic)."""
    while True:
        status, output = await ask()
        if status == 0 and expected(output):
            return
        if time.monotonic() > limit:
            said = (output.strip().splitlines() or ["no output"])[-1]
            raise NoAnswer(f"{complaint} ({said})")
        await asyncio.sleep(0.05)


async def _inside(lab: LabFolder, *applet: str, **environment: str) -> tuple[int, str]:
    """Status and output of a busybox applet within the namespace of node-1."""
    process = await asyncio.create_subprocess_exec(
        *("nsenter", f"--net={NETNS_FOLDER / lab.namespace(1)}", "busybox", *applet),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | environment,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode("utf-8", "replace")
