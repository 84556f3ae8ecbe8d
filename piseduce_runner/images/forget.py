"""What of a system on a card is its machine's or its users', and is taken out of an environment.

Whoever deploys the environment must not be reachable by the old users' keys and passwords, nor get
what they keep secret, and each node has to make its own identity. The list is much that of
virt-sysprep(1). What users have installed, configured and put elsewhere stays.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from piseduce_runner.errors import UserError
from piseduce_runner.images.ext4_files import Entry, Ext4Files

MACHINE_ID = "/etc/machine-id"
_ANY = re.compile(".+")
# Folder, and which names in it go; folders with all that they hold.
_MACHINE = (
    ("/etc", re.compile(r"g?shadow-")),
    ("/etc/security", re.compile(r"opasswd")),
    ("/etc/ssh", re.compile(r"ssh_host_.*")),
    ("/var/lib/dbus", re.compile(r"machine-id")),
    ("/var/lib/systemd", re.compile(r"random-seed|credential\.secret")),
    ("/var/lib/dhcp", re.compile(r".*leases.*")),
    ("/var/lib/dhcpcd", re.compile(r".*lease.*")),
    ("/var/lib/dhcpcd5", re.compile(r".*lease.*")),
    ("/var/lib/NetworkManager", re.compile(r".*lease.*|secret_key|seen-bssids|timestamps")),
    ("/var/lib/cloud", _ANY),
    ("/var/log", re.compile(r"(wtmp|btmp|lastlog|auth\.log|cloud-init.*\.log)(\..*)?")),
    ("/var/log/journal", _ANY),
)
# In every home.
_SECRETS = re.compile(
    r"\.(ssh|gnupg|netrc|git-credentials|pgpass|Xauthority|viminfo|wget-hsts|lesshst"
    r"|[a-z0-9_-]*history|[a-z0-9_-]*_hist)"
)
_LOCKED = b"*"


def forget(files: Ext4Files) -> list[str]:
    """Remove it, and lock every password. The paths that were removed. Raises UserError."""
    accounts = files.read("/etc/passwd")
    shadow = files.read("/etc/shadow")
    removed = files.remove(_leftovers(files, homes(accounts)))
    for path, before in (("/etc/passwd", accounts), ("/etc/shadow", shadow)):
        after = locked(before)
        if after != before:
            files.replace(_needed(files, path), after)
    identity = files.find(MACHINE_ID)
    if identity is not None and identity.is_file:
        files.replace(identity, b"")
    return removed


def homes(accounts: bytes) -> list[str]:
    """The homes in the text of /etc/passwd, and root's; none twice."""
    found = {"/root": None}
    for line in accounts.decode(errors="surrogateescape").splitlines():
        fields = line.split(":")
        place = PurePosixPath(fields[5]) if len(fields) > 5 else None
        if place and place.is_absolute() and ".." not in place.parts and fields[5].isprintable():
            found[str(place)] = None
    return list(found)


def locked(text: bytes) -> bytes:
    """The text of /etc/passwd or /etc/shadow without any password, hashed or not.

    shadow(5): an empty field lets everybody in; one of `*` and `!` alone nobody. What stands behind
    a `!` is the hash of an account that is locked for now. In /etc/passwd an `x` says that the
    password is in the other file.
    """
    lines = []
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 1 and (not fields[1] or fields[1].strip(b"*!") not in (b"", b"x")):
            fields[1] = _LOCKED
        lines.append(b":".join(fields))
    return b"\n".join(lines)


def _leftovers(files: Ext4Files, places: list[str]) -> Iterator[Entry]:
    for folder, names in (*_MACHINE, *((place, _SECRETS) for place in places)):
        for entry in files.entries(folder):
            if names.fullmatch(entry.name):
                yield entry


def _needed(files: Ext4Files, path: str) -> Entry:
    entry = files.find(path)
    if entry is None:
        raise UserError(f"the system on the card has no file {path}")
    return entry
