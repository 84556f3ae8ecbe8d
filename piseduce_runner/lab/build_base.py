"""The Debian tree that the deploy OS and the sample image are made from."""

import os
import subprocess
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.lab.build_sources import Release, debian_sources, host_apt_options

# What roles use on the deploy OS, and what every Raspberry Pi OS Lite has; python3-fusepy is for
# kernels without vfat.
PACKAGES = [
    "busybox-static",
    "curl",
    "dosfstools",
    "e2fsprogs",
    "fdisk",
    "iproute2",
    "mtools",
    "openssh-server",
    "parted",
    "procps",
    "python3",
    "python3-fusepy",
    "rsync",
    "sudo",
    "zstd",
]
# Nobody reads manuals on a simulated node, and every megabyte is copied to every card.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def build_base(tree: Path, release: Release, log: Path) -> None:
    """Install Debian into the new folder `tree`, without traces of this host or of the build.

    What mmdebstrap says goes to the file `log`. Raises UserError with mmdebstrap's own complaint if
    it fails.
    """
    sources = tree.with_name(tree.name + ".sources")
    sources.write_text(debian_sources(release.codename), encoding="utf-8")
    options = tree.with_name(tree.name + ".apt.conf")
    options.write_text(host_apt_options(), encoding="utf-8")
    command = [
        # mmdebstrap does not mind if its parent dies: when we do, its PID namespace ends, with it.
        *("setpriv", "--pdeathsig=KILL"),
        *("unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root",
        "--format=directory",
        f"--include={','.join(PACKAGES)}",
        "--aptopt=APT::Install-Recommends false",
        "--aptopt=Acquire::Languages none",
        f"--aptopt={options}",
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        release.codename,
        str(tree),
        str(sources),
    ]
    # C.UTF-8: the only locale that every tree has.
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("w", encoding="utf-8") as output:
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
    if status != 0:
        raise UserError(
            f"building the lab's Debian failed: {_complaint(log)} (all of it: {log}); "
            "can this machine reach its Debian mirror (apt-get update)?"
        )
    _forget_the_build(tree)
    sources.unlink()
    options.unlink()


def _complaint(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E: ")]
    return (errors or lines or ["it said nothing"])[0].removeprefix("E: ")


def _forget_the_build(tree: Path) -> None:
    """Remove what belongs to this host or this build: sources, settings, caches, keys, logs."""
    for pattern in (
        "etc/apt/apt.conf.d/99mmdebstrap",
        "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        "etc/apt/sources.list.d/*",
        "etc/apt/sources.list",
        "etc/ssh/ssh_host_*",
        "etc/resolv.conf",
        "var/cache/apt/*.bin",
        "var/lib/apt/lists/*_*",
        "var/lib/dpkg/*-old",
        "var/cache/debconf/*-old",
    ):
        for file in tree.glob(pattern):
            file.unlink()
    for file in (tree / "var/log").rglob("*"):
        if file.is_file():
            file.unlink()
    (tree / "etc/machine-id").write_text("")
    # A regular file: whoever does the node's DHCP writes the name server into it.
    (tree / "etc/resolv.conf").write_text("")
