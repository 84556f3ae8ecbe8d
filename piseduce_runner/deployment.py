"""What a deployment is asked to be, checked before anything is touched, and given to the roles."""

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piseduce_runner import environments
from piseduce_runner.environments import Environment
from piseduce_runner.errors import UserError
from piseduce_runner.families import find_family
from piseduce_runner.site import Node, Site

_SECTOR = 512
_GIB = 1024**3
_MIB = 1024**2
_PART_SIZE = re.compile(r"([1-9][0-9]{0,6})(gb|mb)")
# sshd(8), AUTHORIZED_KEYS FILE FORMAT.
_KEY_TYPE = re.compile(
    r"ssh-(rsa|ed25519)|ecdsa-sha2-nistp(256|384|521)"
    r"|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
)
# chpasswd(8) reads lines, and crypt(5) takes no longer keys in every implementation.
_LONGEST_PASSWORD = 128


@dataclass(frozen=True)
class Request:
    """A checked request: these nodes get this environment.

    `part_bytes` is the size of the second partition, 0 for the whole card. `password_hash` is a
    crypt(5) hash, or empty: then the default user has no password.
    """

    nodes: tuple[Node, ...]
    environment: Environment
    update: bool
    part_bytes: int
    password_hash: str
    ssh_keys: tuple[str, ...]

    @property
    def conditions(self) -> frozenset[str]:
        """What of `processes.CONDITIONS` was asked for."""
        return frozenset({"update"} if self.update else ())

    @property
    def options(self) -> dict[str, Any]:
        """The request as the store keeps it."""
        return {
            "update": self.update,
            "part_bytes": self.part_bytes,
            "password_hash": self.password_hash,
            "ssh_keys": list(self.ssh_keys),
            "family": self.environment.family,
        }


def make_request(
    site: Site,
    *,
    nodes: Iterable[str],
    environment: str,
    update: bool,
    part_size: str,
    ssh_keys: Iterable[Path],
    password: str | None,
) -> Request:
    """Turn what the user typed into a request. Raises `UserError`; touches nothing."""
    chosen = site.choose_nodes(nodes)
    part_bytes = parse_part_size(part_size)
    keys = read_ssh_keys(list(ssh_keys))
    password_hash = hash_password(password) if password is not None else ""
    found = find_environment(site, environment)
    find_family(site.folder, found.family)
    check_part_size(part_bytes, found, chosen)
    site.check_ready()
    return Request(tuple(chosen), found, update, part_bytes, password_hash, keys)


def find_environment(site: Site, name: str) -> Environment:
    """The environment of that name, its files verified against their digests.

    Raises `UserError` when it is unknown, or a file is missing or damaged.
    """
    environment = environments.find(site.environments, name)
    environments.verify_files(environment)
    return environment


def parse_part_size(text: str) -> int:
    """Bytes of the second partition: `whole` is 0, else whole gibi- or mebibytes (`8gb`, `512mb`).

    The original counts `5gb` as 5 GiB, and so do we.
    """
    if text == "whole":
        return 0
    match = _PART_SIZE.fullmatch(text.lower())
    if match is None:
        raise UserError(f"part size {text!r} is not understood; write `whole`, `8gb` or `512mb`")
    return int(match[1]) * (_GIB if match[2] == "gb" else _MIB)


def check_part_size(part_bytes: int, environment: Environment, nodes: list[Node]) -> None:
    """The second partition must hold the image's, and fit on each card whose size is known."""
    least = environment.root_sectors * _SECTOR
    if part_bytes and part_bytes < least:
        raise UserError(
            f"part size {part_bytes // _MIB} MiB is smaller than the root partition of"
            f" {environment.name} ({-(-least // _MIB)} MiB); ask for more, or for `whole`"
        )
    needed = environment.root_start_sector * _SECTOR + (part_bytes or least)
    for node in nodes:
        if node.card_bytes is not None and needed > node.card_bytes:
            raise UserError(
                f"{node.name}: its card has {node.card_bytes // _MIB} MiB, but {needed // _MIB} MiB"
                " are needed; ask for a smaller part size or another environment"
            )


def read_ssh_keys(files: list[Path]) -> tuple[str, ...]:
    """The public keys in these files, each checked by ssh-keygen(1)."""
    keys: dict[str, None] = {}
    for path in files:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UserError(f"{path}: the SSH key cannot be read: {reason}") from error
        if "PRIVATE KEY" in text:
            raise UserError(f"{path} is a private key; give the public one ({path}.pub)")
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                keys[_checked_key(line.strip(), f"{path}:{number}")] = None
        if not keys:
            raise UserError(f"{path}: there is no SSH key in it")
    return tuple(keys)


def _checked_key(line: str, where: str) -> str:
    words = line.split()
    # Options before the key type (command=..., cert-authority) would hold on our nodes for root.
    if not _KEY_TYPE.fullmatch(words[0]) or not line.isprintable():
        raise UserError(f"{where}: not a public SSH key (`ssh-ed25519 AAAA... comment`)")
    result = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"], input=line + "\n", capture_output=True, text=True
    )
    if result.returncode != 0 or len(words) < 2:
        raise UserError(f"{where}: not a valid public SSH key (ssh-keygen cannot read it)")
    return line


def hash_password(password: str) -> str:
    """A SHA-512 crypt(5) hash of the password, by openssl-passwd(1). Raises `UserError`."""
    if not password:
        raise UserError("the password is empty")
    if len(password) > _LONGEST_PASSWORD:
        raise UserError(f"the password is longer than {_LONGEST_PASSWORD} characters")
    if not password.isprintable():
        raise UserError("the password has a line break or another control character in it")
    result = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password + "\n", capture_output=True, text=True
    )
    hashed = result.stdout.strip()
    if result.returncode != 0 or not hashed.startswith("$6$"):
        raise RuntimeError(f"openssl passwd failed: {result.stderr.strip()}")
    return hashed
