# SPDX-License-Identifier: MIT
"""What is wanted in a tree, as data: each item can tell whether it is met, and can be made so."""

from __future__ import annotations

import stat
from collections import namedtuple

_LONGEST = 65536  # bytes of a file that are worth showing in a diff


class File(namedtuple("File", "path data mode secret")):
    """A regular file of root's with these contents; a secret one never shows in a diff."""

    def __new__(cls, path, data, mode=0o644, secret=False):
        return super().__new__(cls, path, data, mode, secret)

    def is_met(self, tree):
        found = tree.status(self.path)
        return (
            found is not None
            and stat.S_ISREG(found.st_mode)
            and tree.fits(found, self.mode)
            and found.st_size == len(self.data)
            and tree.read(self.path, len(self.data)) == self.data
        )

    def make(self, tree):
        tree.write(self.path, self.data, self.mode)

    def text(self):
        return "(secret)\n" if self.secret else self.data.decode(errors="replace")


class Folder(namedtuple("Folder", "path mode")):
    """A folder of root's with these permissions."""

    def is_met(self, tree):
        found = tree.status(self.path)
        return found is not None and stat.S_ISDIR(found.st_mode) and tree.fits(found, self.mode)

    def make(self, tree):
        tree.make_folder(self.path, self.mode)

    def text(self):
        return f"folder, mode {self.mode:04o}\n"


class Link(namedtuple("Link", "path target")):
    """A symbolic link."""

    def is_met(self, tree):
        return tree.link(self.path) == self.target

    def make(self, tree):
        tree.make_link(self.path, self.target)

    def text(self):
        return f"link to {self.target}\n"


class Absent(namedtuple("Absent", "path")):
    """Nothing at this path."""

    def is_met(self, tree):
        return tree.status(self.path) is None

    def make(self, tree):
        tree.remove(self.path)

    def text(self):
        return ""


def describe(tree, item):
    """What is at an item's path now, as text for Ansible's diff."""
    found = tree.status(item.path)
    if found is None:
        return ""
    if stat.S_ISLNK(found.st_mode):
        return f"link to {tree.link(item.path)}\n"
    if stat.S_ISDIR(found.st_mode):
        return f"folder, mode {stat.S_IMODE(found.st_mode):04o}\n"
    if getattr(item, "secret", False) or not stat.S_ISREG(found.st_mode):
        return "(secret)\n" if stat.S_ISREG(found.st_mode) else "neither file nor folder\n"
    if found.st_size > _LONGEST:
        return f"({found.st_size} bytes)\n"
    try:
        return tree.read(item.path).decode()
    except UnicodeDecodeError:
        return f"({found.st_size} bytes)\n"
