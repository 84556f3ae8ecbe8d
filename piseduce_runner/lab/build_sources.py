"""Where Debian comes from: the apt sources that the host itself uses for its Debian release.

Formats: sources.list(5), both the one-line style and deb822.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from piseduce_runner.errors import UserError

ETC = Path("/etc")
MOVING_SUITES = ("stable", "oldstable", "testing")
POCKETS = ("", "-updates", "-security")
# What the host's apt needs to reach its mirror through is needed here too.
HOST_OPTIONS = re.compile(
    r'^Acquire::(https?::(Proxy|Verify|CaInfo)|Check-|Retries|Force)[^"]*"[^"]+";$'
)


@dataclass(frozen=True)
class Release:
    """The host's Debian release, from os-release(5)."""

    codename: str  # "bookworm"
    version: str  # "12"


def host_release(etc: Path = ETC) -> Release:
    """The host's Debian release. Raises UserError on any other distribution."""
    values = {}
    for line in (etc / "os-release").read_text(encoding="utf-8").splitlines():
        key, found, value = line.partition("=")
        if found:
            values[key] = value.strip("\"'")
    if values.get("ID") != "debian" or not values.get("VERSION_CODENAME"):
        raise UserError(
            "the lab builds its systems from the host's own Debian release, but this host is "
            f"{values.get('PRETTY_NAME', 'not Debian')}: run the lab on Debian 12 or later"
        )
    return Release(values["VERSION_CODENAME"], values.get("VERSION_ID", "0"))


def debian_sources(codename: str, etc: Path = ETC) -> str:
    """The host's sources for Debian's own `main`, as one deb822 file (text).

    Sources of other archives, other components and source packages are left out. Raises UserError
    if nothing is left that holds the release itself.
    """
    kept = []
    base = False
    for stanza in _stanzas(etc / "apt"):
        suites = [s for s in stanza["Suites"].split() if _of_release(s, codename)]
        if suites and _is_debian_main(stanza):
            base = base or any(suite in (codename, *MOVING_SUITES) for suite in suites)
            kept.append(stanza | {"Types": "deb", "Suites": " ".join(suites), "Components": "main"})
    if not base:
        raise UserError(
            f"no apt source for Debian {codename} main in {etc}/apt: the lab installs its systems "
            "from where the host itself gets Debian"
        )
    return "\n".join("".join(f"{key}: {value}\n" for key, value in s.items()) for s in kept)


def host_apt_options() -> str:
    """The host's apt settings on proxies, certificates and clock checks, as apt.conf(5) lines."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    return "".join(f"{line}\n" for line in dump.stdout.splitlines() if HOST_OPTIONS.match(line))


def _of_release(suite: str, codename: str) -> bool:
    return any(suite == name + pocket for name in (codename, *MOVING_SUITES) for pocket in POCKETS)


def _is_debian_main(stanza: dict[str, str]) -> bool:
    signed_by = stanza.get("Signed-By", "")
    return (
        "deb" in stanza["Types"].split()
        and "main" in stanza["Components"].split()
        and stanza.get("Enabled", "yes").lower() not in ("no", "false", "0")
        and not stanza["URIs"].startswith("cdrom:")
        # A path names the keyring; anything else is a key in the file, which names nobody.
        and (not signed_by.startswith("/") or "debian" in signed_by)
    )


def _stanzas(apt: Path) -> Iterator[dict[str, str]]:
    parts = apt / "sources.list.d"
    for file in [apt / "sources.list", *sorted(parts.glob("*.list"))]:
        if file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                if stanza := _one_line(line):
                    yield stanza
    for file in sorted(parts.glob("*.sources")):
        for block in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")):
            if (stanza := _deb822(block)) and {"Types", "URIs", "Suites"} <= stanza.keys():
                yield {"Components": ""} | stanza


def _one_line(line: str) -> dict[str, str] | None:
    match = re.match(r"(deb|deb-src)\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line.strip())
    if not match:
        return None
    kind, options, uri, suite, components = match.groups()
    stanza = {"Types": kind, "URIs": uri, "Suites": suite, "Components": components.strip()}
    for option in (options or "").split():
        key, _, value = option.partition("=")
        if key == "signed-by":
            stanza["Signed-By"] = value
    return stanza


def _deb822(block: str) -> dict[str, str]:
    """One stanza; continuation lines (a key in Signed-By) stay part of their value."""
    stanza: dict[str, str] = {}
    key = ""
    for line in block.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t" and key:
            stanza[key] += "\n" + line
        else:
            key, _, value = line.partition(":")
            stanza[key] = value.strip()
    return stanza
