# SPDX-License-Identifier: MIT
"""A user's ``~/.ssh/authorized_keys`` (sshd(8)), written by root into a home that is not root's.

The home belongs to somebody who may put links in the way at any time. So everything below it is
reached by descriptors of folders, and no link is followed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import secrets
import stat

from ansible.module_utils.piseduce_process import Failure

_FOLDER, _FILE = ".ssh", "authorized_keys"
_REMAINS = re.compile(rf"{_FILE}\.[0-9a-f]{{8}}")
_LONGEST = 1 << 20  # bytes; a longer file is no list of keys
_KEY = re.compile(
    r"(?P<kind>ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)"
    r"|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com)"
    r" (?P<data>[A-Za-z0-9+/]+={0,2})(?: [^\x00-\x1f\x7f]*)?"
)


def key_lines(keys):
    """The contents of an authorized_keys file with these public keys, each once, in this order.

    :raises Failure: one of them is not a public key, in the form of a ``.pub`` file
    """
    lines = {}
    for key in keys:
        match = _KEY.fullmatch(key.strip())
        if not match or not _is_of_kind(match["data"], match["kind"]):
            raise Failure(f"not an SSH public key: {key.strip()[:60]!r}")
        lines.setdefault(match["data"], key.strip())
    return "".join(f"{line}\n" for line in lines.values())


def _is_of_kind(data, kind):
    """Whether the key's data begins with its kind, as RFC 4253, 6.6 says."""
    try:
        blob = base64.b64decode(data, validate=True)
    except binascii.Error:
        return False
    return blob.startswith(len(kind).to_bytes(4, "big") + kind.encode())


class AuthorizedKeys:
    """The file of one user.

    :param account: entry of :mod:`pwd`
    """

    def __init__(self, account):
        self._account = account
        self.path = f"{account.pw_dir}/{_FOLDER}/{_FILE}"

    def read(self):
        """Its text, an empty string if there is no such file or a link in its place."""
        with contextlib.ExitStack() as stack:
            folder = self._open_folder(stack)
            return "" if folder is None else self._text(folder)

    def is_in_order(self, text):
        """Whether the file holds this text, and sshd believes it: owner and modes are right."""
        with contextlib.ExitStack() as stack:
            folder = self._open_folder(stack)
            if folder is None or not self._is_ours(os.fstat(folder), 0o700):
                return False
            try:
                found = os.stat(_FILE, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return False
            regular = stat.S_ISREG(found.st_mode)
            return regular and self._is_ours(found, 0o600) and self._text(folder) == text

    def write(self, text):
        """Replace the file in one step, and set owner and modes of file and folder."""
        with contextlib.ExitStack() as stack:
            folder = self._open_folder(stack, create=True)
            self._remove_remains(folder)
            temporary = f"{_FILE}.{secrets.token_hex(4)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as writer:
                    self._make_ours(descriptor, 0o600)
                    writer.write(text)
                    writer.flush()
                    os.fsync(descriptor)
                os.rename(temporary, _FILE, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)

    def _remove_remains(self, folder):
        """Remove what writers that were killed have left."""
        with os.scandir(folder) as entries:
            remains = [
                entry.name
                for entry in entries
                if _REMAINS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            ]
        for name in remains:
            os.unlink(name, dir_fd=folder)

    def _open_folder(self, stack, create=False):
        """Descriptor of ``~/.ssh``, closed with the stack; None if it is not there."""
        home = os.open(self._account.pw_dir, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, home)
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(_FOLDER, 0o700, dir_fd=home)
        try:
            folder = os.open(_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=home)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failure(f"{self._account.pw_dir}/{_FOLDER} is not a folder") from error
        stack.callback(os.close, folder)
        if create:
            self._make_ours(folder, 0o700)
        return folder

    def _text(self, folder):
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(_FILE, flags, dir_fd=folder)
        except OSError:
            return ""
        with os.fdopen(descriptor, "rb") as reader:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return ""
            return reader.read(_LONGEST).decode("utf-8", "replace")

    def _make_ours(self, descriptor, mode):
        os.fchown(descriptor, self._account.pw_uid, self._account.pw_gid)
        os.fchmod(descriptor, mode)

    def _is_ours(self, found, mode):
        owner = (found.st_uid, found.st_gid) == (self._account.pw_uid, self._account.pw_gid)
        return owner and stat.S_IMODE(found.st_mode) == mode
