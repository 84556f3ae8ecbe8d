# SPDX-License-Identifier: MIT
"""What the steps of system_conf want of a card: collected first, made afterwards.

A step is a function `step(system, argument)`. It looks at the card's two trees through
`system.root` and `system.boot`, and says what it wants there. Nothing is changed by it, so a later
step sees what an earlier one wants as if it were there already.
"""

from __future__ import annotations

from ansible.module_utils.piseduce_process import Failure
from ansible.module_utils.piseduce_wanted import Absent, File, Folder, Link


class Plan:
    """A tree as it will be: one of :mod:`piseduce_card_tree`, and what is wanted in it."""

    def __init__(self, tree):
        self._tree = tree
        self._items = {}

    @property
    def items(self):
        """What is wanted, items of :mod:`piseduce_wanted`; one for each path, the latest."""
        return list(self._items.values())

    def want(self, *items):
        """Want these, also where something else was wanted before."""
        for item in items:
            self._items.pop(item.path, None)
            self._items[item.path] = item

    def write(self, path, text, mode=0o644):
        """Want a file with this text; characters that are no UTF-8 come from :meth:`text`."""
        self.want(File(path, text.encode("utf-8", "surrogateescape"), mode))

    def remove(self, *paths):
        """Want nothing there, where something is."""
        self.want(*(Absent(path) for path in paths if self.exists(path)))

    def read(self, path, longest=1 << 20):
        """Bytes of a file, None if there is none."""
        item = self._items.get(path)
        if isinstance(item, File):
            return item.data
        if isinstance(item, (Absent, Folder)):
            return None
        return self._tree.read(path, longest)

    def text(self, path):
        """Text of a file; an empty one if there is none."""
        return (self.read(path) or b"").decode("utf-8", "surrogateescape")

    def exists(self, path):
        """Whether there is a file, a folder or a link, which may be dead."""
        if path in self._items:
            return not isinstance(self._items[path], Absent)
        return self._tree.status(path) is not None

    def names(self, path):
        """Sorted names in a folder of the card (what is wanted there is not among them)."""
        return self._tree.names(path)

    def link(self, path):
        """Where a link points, None if there is none."""
        item = self._items.get(path)
        if item is not None:
            return item.target if isinstance(item, Link) else None
        return self._tree.link(path)


class System:
    """The card's system as the steps see it.

    :ivar root: :class:`Plan` of the second partition, whatever it holds
    :ivar boot: :class:`Plan` of the first partition
    :ivar hostname: the node's name
    :ivar login: the default user
    :ivar manager_key: the manager's public SSH key, one line
    :ivar host_key: the public SSH host key, `ssh-ed25519 AAAA...`, once a step has asked for one
    """

    def __init__(self, root, boot, hostname, login, manager_key, make_host_key):
        self.root, self.boot = Plan(root), Plan(boot)
        self.hostname, self.login, self.manager_key = hostname, login, manager_key
        self.host_key = ""
        self._make_host_key = make_host_key

    def give_host_key(self, found):
        """The system's own SSH host key, ed25519; the manager will expect exactly this one.

        :param found: the private key that the card has, bytes or None. It stays if it is the one
            that the manager expects already.
        :returns: the private key, as bytes
        """
        private, self.host_key = self._make_host_key(found)
        return private

    def kernel_arguments(self, change, *names):
        """Change the words of each kernel command line on the boot partition.

        :param change: function from a list of words to another
        :param names: files that may be there; `cmdline.txt` must be
        :raises Failure: there is no cmdline.txt
        """
        if self.boot.read("cmdline.txt") is None:
            raise Failure("the boot partition has no cmdline.txt")
        for name in ("cmdline.txt", *names):
            if self.boot.read(name) is None:
                continue
            words = self.boot.text(name).split()
            changed = change(list(words))
            if changed != words:
                self.boot.write(name, " ".join(changed) + "\n")
