"""The package `pi-boot-sample` and the small APT repository that offers a newer version of it.

Like the Raspberry Pi's firmware package it owns files of the boot partition, bootcode.bin among
them: an upgrade brings that file back, and whoever upgrades a node must know it.
"""

import hashlib
import tempfile
from pathlib import Path

from piseduce_runner.lab.build_boot_files import BOOTCODE_BYTES, deterministic_bytes
from piseduce_runner.lab.build_tree import RECIPE, run

NAME = "pi-boot-sample"
INSTALLED, NEWER = "1.0", "1.1"
# In the past for every node, whatever its clock says.
RELEASE_DATE = "Tue, 14 Nov 2023 22:13:20 UTC"


def build_package(version: str, folder: Path) -> Path:
    """Build pi-boot-sample `version` in `folder` and return the .deb."""
    tree = folder / f"{NAME}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(_control(version), encoding="utf-8")
    postinst = tree / "DEBIAN/postinst"
    postinst.write_bytes((RECIPE / f"{NAME}.postinst").read_bytes())
    postinst.chmod(0o755)
    files = tree / "usr/lib" / NAME
    files.mkdir(parents=True)
    (files / f"{NAME}.txt").write_text(f"{NAME} {version}\n", encoding="ascii")
    (files / "bootcode.bin").write_bytes(deterministic_bytes("bootcode.bin", BOOTCODE_BYTES))
    deb = folder / f"{NAME}_{version}_all.deb"
    run("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", tree, deb)
    return deb


def build_repository(target: Path) -> None:
    """A flat repository (`deb [trusted=yes] URL ./`) in `target` that offers version 1.1.

    Format: Debian's RepositoryFormat, "flat repository".
    """
    target.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        deb = build_package(NEWER, Path(scratch))
        content = deb.read_bytes()
    (target / deb.name).write_bytes(content)
    packages = (
        _control(NEWER)
        + f"Filename: ./{deb.name}\nSize: {len(content)}\n"
        + f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    ).encode()
    (target / "Packages").write_bytes(packages)
    (target / "Release").write_text(
        f"Origin: PiSeduce lab\nDate: {RELEASE_DATE}\nArchitectures: all\nSHA256:\n"
        f" {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n",
        encoding="utf-8",
    )


def _control(version: str) -> str:
    return (
        f"Package: {NAME}\nVersion: {version}\nArchitecture: all\nSection: misc\n"
        "Priority: optional\nMaintainer: PiSeduce runner contributors <root@localhost>\n"
        "Description: sample of a package with files in the boot partition\n"
    )
