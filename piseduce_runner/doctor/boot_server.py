"""What nodes boot from: the TFTP root and its server, the deploy OS's boot files, DHCP."""

import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from piseduce_runner.doctor.findings import Finding, not_checked, ok, problem, warning
from piseduce_runner.doctor.tftp import TftpError, TftpSilence, read_file
from piseduce_runner.site import Node

_DEFAULT_MANAGER_DIR = "/etc/piseduce/manager"
# /proc/stat knows the boot time in whole seconds.
_CLOCK_SLACK = 2


def dnsmasq_dir(variables: Mapping[str, Any]) -> Path:
    """Where `playbooks/manager.yml` puts dnsmasq's configuration on this site."""
    folder = variables.get("manager_dnsmasq_dir") or variables.get("manager_dir")
    return Path(str(folder or _DEFAULT_MANAGER_DIR))


def check_tftp(root: Path, address: str, port: int = 69) -> list[Finding]:
    """The TFTP root can be written to, and a file in it is what the server gives over the network.

    The file is our own, and is removed again.
    """
    name = f"piseduce-doctor-{secrets.token_hex(8)}"
    content = f"written by `piseduce-run doctor`, and removed again: {name}\n"
    try:
        with _probe(root / name, content):
            found = ok("tftp-root", str(root), "it exists and can be written to")
            return [found, _check_server(address, port, name, content.encode(), str(root))]
    except OSError as error:
        said = f"we cannot write to it: {error.strerror}"
        remedy = f"make the folder (mkdir -p {root}), or run piseduce-run as a user who may write"
        found = problem("tftp-root", str(root), said, remedy)
    return [found, _check_server(address, port, name, None, str(root))]


@contextmanager
def _probe(file: Path, content: str) -> Iterator[None]:
    with file.open("x", encoding="ascii") as stream:
        try:
            stream.write(content)
            stream.close()
            # dnsmasq serves only what everybody may read.
            file.chmod(0o644)
            yield
        finally:
            file.unlink()


def _check_server(address: str, port: int, name: str, expected: bytes | None, root: str) -> Finding:
    check, subject = "tftp-server", address
    try:
        content = read_file(address, name, port=port)
    except TftpSilence as silence:
        return problem(
            check,
            subject,
            f"no TFTP server answers there ({silence}): no node can boot",
            "start dnsmasq (its configuration is made by playbooks/manager.yml); if it runs, look"
            " at its log, its `interface` and the firewall",
        )
    except TftpError as error:
        if expected is None:
            return ok(check, subject, "it answers; whether it serves the root was not to be tried")
        return problem(
            check,
            subject,
            f"it does not give a file that lies in piseduce_tftp_root: {error}",
            f"compare its `tftp-root` with {root}; its user must be able to reach that folder",
        )
    if content != expected:
        message = "it gives another file than the one that lies in piseduce_tftp_root"
        return problem(check, subject, message, f"compare its `tftp-root` with {root}")
    return ok(check, subject, "it serves piseduce_tftp_root over the network")


def check_nfs_boot_files(folder: Path) -> list[Finding]:
    """What the firmware fetches to start the deploy OS is complete, and leads to an NFS root."""
    check, subject = "nfs-boot-files", str(folder)
    remedy = "fill it from the boot partition of the deploy OS (piseduce_nfs_boot_files)"
    if not folder.is_dir():
        return [problem(check, subject, "there is no such folder", remedy)]
    missing = [name for name in ("config.txt", "cmdline.txt") if not (folder / name).is_file()]
    if missing:
        return [problem(check, subject, f"there is no {' and no '.join(missing)} in it", remedy)]
    lines = (folder / "cmdline.txt").read_text("utf-8", "replace").split("\n")
    roots = re.findall(r"(?:^|\s)root=(\S+)", lines[0])
    cmdline = f"{folder / 'cmdline.txt'}"
    if any(line.strip() for line in lines[1:]):
        said = "it has more than one line, and the firmware reads the first only"
        return [problem(check, cmdline, said, "put all its words into one line")]
    if not roots:
        said = "there is no root= in it"
        return [problem(check, cmdline, said, "add root=/dev/nfs nfsroot=... ip=dhcp")]
    if roots[-1].startswith(("/dev/mmcblk", "PARTUUID=", "UUID=", "LABEL=")):
        said = f"root={roots[-1]} is a card: nodes would start the system on it, and overwrite it"
        return [problem(check, cmdline, said, "it must be root=/dev/nfs nfsroot=... ip=dhcp")]
    # Kernels and firmware have many names: without any, config.txt alone starts nothing.
    if not any(file.stat().st_size > 1 << 20 for file in folder.rglob("*") if file.is_file()):
        said = "there is no kernel in it (no file of more than 1 MiB)"
        return [warning(check, subject, said, remedy)]
    return [ok(check, subject, f"config.txt, cmdline.txt with root={roots[-1]}, and a kernel")]


def check_dhcp(nodes: Iterable[Node], folder: Path) -> list[Finding]:
    """dnsmasq's configuration in `folder` has each node's MAC and IPv4 address."""
    check, file = "dhcp-node", folder / "dnsmasq.conf"
    try:
        text = file.read_text("utf-8", "replace")
    except OSError as error:
        said = f"dnsmasq's configuration cannot be read: {error.strerror}"
        remedy = "where another DHCP server does it, make sure that it knows the nodes' MACs"
        return [not_checked("dhcp-nodes", str(file), said, remedy)]
    given = dict(re.findall(r"^dhcp-host=([0-9a-fA-F:]{17}),([0-9.]+)", text, re.MULTILINE))
    given = {mac.lower(): address for mac, address in given.items()}
    remedy = "run playbooks/manager.yml again, and restart dnsmasq"
    findings = []
    for node in nodes:
        address = given.get(node.mac)
        if address is None:
            said = f"{file} does not know its MAC address {node.mac}: it gets no address"
            findings.append(problem(check, node.name, said, remedy))
        elif address != node.address:
            said = f"{file} gives it {address}, but ansible_host is {node.address}"
            findings.append(problem(check, node.name, said, remedy))
    findings = findings or [ok("dhcp-nodes", str(file), "it knows every node")]
    if _changed_since_start(file, folder / "dnsmasq.pid"):
        said = "it was changed after dnsmasq was started, and dnsmasq reads it only then"
        findings.append(warning("dhcp-restart", str(file), said, "restart dnsmasq"))
    return findings


def _changed_since_start(configuration: Path, pid_file: Path) -> bool:
    """False, too, when nobody knows: no process, or not ours to see (proc(5))."""
    try:
        stat = Path("/proc", str(int(pid_file.read_text())), "stat").read_text()
        boot = re.search(r"^btime (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return False
    # Field 22, starttime; the second field, the name in parentheses, may have spaces.
    ticks = int(stat.rpartition(")")[2].split()[19])
    started = int(boot[1]) + ticks / os.sysconf("SC_CLK_TCK")
    return configuration.stat().st_mtime > started + _CLOCK_SLACK
