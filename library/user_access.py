#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: who may log in to a deployed system, and how."""

from __future__ import annotations

import pwd
import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_authorized_keys import AuthorizedKeys, key_lines
from ansible.module_utils.piseduce_process import Failure, Hopeless, Watch, guarded, run

DOCUMENTATION = r"""
module: user_access
short_description: Sets who may log in to a system, and how
description:
  - Gives the system's default user a password and the users' SSH keys, and root the manager's key
    and the users' keys. Both have exactly these keys afterwards.
  - Root gets no password to log in with, nor does the default user if none is given. Passwords
    that an image brings along are well known, and taken away. Keys work without a password.
  - The password comes as a hash, which reaches the system by standard input only.
  - Everything is read back.
options:
  login:
    description: The system's default user. It must exist.
    type: str
    required: true
  password_hash:
    description:
      - Hash of the default user's password, in the form of crypt(5). If empty, that user gets
        no password, C(*) in shadow(5), and loses the one of the image.
    type: str
    default: ""
  keys:
    description: SSH public keys of the users, for the default user and for root.
    type: list
    elements: str
    default: []
  manager_key:
    description: SSH public key of the manager, for root.
    type: str
    required: true
  timeout:
    description: Seconds after which the work is given up.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: Tells what would change.
  diff_mode:
    support: full
    description: Shows the keys. Of passwords it shows only that they change.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Give the users access
  user_access:
    login: pi
    password_hash: "{{ password_hash }}"
    keys: "{{ user_keys }}"
    manager_key: "{{ lookup('ansible.builtin.file', '/etc/piseduce/keys/manager_ed25519.pub') }}"
"""

RETURN = r"""
password:
  description: Whether the default user has the password that was asked for, C(set), or C(none).
  returned: success
  type: str
  sample: set
key_files:
  description: The files that hold the keys.
  returned: success
  type: list
  elements: str
"""

_HASH = re.compile(r"\$[0-9a-z]+\$[./0-9A-Za-z$=,+-]{8,500}")  # crypt(5)
# shadow(5): no password matches it. A "!" in front would shut out keys as well, where sshd goes
# without PAM.
_NOTHING = "*"


def _account(name):
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise Hopeless(f"there is no user {name!r} on this system") from None


def _password_field(name):
    """The second field of the user's entry in shadow(5)."""
    fields = run(["getent", "shadow", name], what=f"reading the password of {name}")[1].split(":")
    if len(fields) < 2:
        raise Failure(f"there is no password entry for {name!r}")
    return fields[1]


class Password:
    """What a user's password entry should be."""

    def __init__(self, name, wanted):
        self.name, self._wanted = name, wanted
        self.kind = "none" if wanted == _NOTHING else "set anew"
        self.differs = _password_field(name) != wanted

    def set(self):
        run(["chpasswd", "-e"], text=f"{self.name}:{self._wanted}\n")
        if _password_field(self.name) != self._wanted:
            raise Failure(f"the password of {self.name} was set, and is not what it was set to")


def _passwords(login, wanted):
    """The entries to set: the default user's, and root's if it is one to log in with.

    A root with "!" is left alone: we are here by root's key, so this system's sshd does not mind.
    """
    passwords = [] if login == "root" else [Password(login, wanted or _NOTHING)]
    if not _password_field("root").startswith(("*", "!")):
        passwords.append(Password("root", _NOTHING))
    return [password for password in passwords if password.differs]


def _check_sshd(account, path):
    """See that the system's sshd, as it is configured, reads the file of this user."""
    connection = f"user={account.pw_name},host=localhost,addr=127.0.0.1"
    lines = run(["sshd", "-T", "-C", connection])[1].splitlines()
    settings = dict(line.split(" ", 1) for line in lines if " " in line)
    if settings.get("pubkeyauthentication") != "yes":
        raise Failure("the SSH server of this system accepts no keys: PubkeyAuthentication")
    places = settings.get("authorizedkeysfile", "").split()
    known = {"%h": account.pw_dir, "%u": account.pw_name, "%U": str(account.pw_uid), "%%": "%"}
    for place in places:
        expanded = re.sub("%[huU%]", lambda match: known[match.group()], place)
        if f"{account.pw_dir}/{expanded}" == path or expanded == path:
            return
    raise Failure(
        f"the SSH server of this system reads the keys of {account.pw_name} from"
        f" {' '.join(places)}, not from {path}"
    )


def _key_files(login, manager_key, keys):
    """The files as [(account, file, text)]: of root, and of the default user."""
    texts = {"root": key_lines([manager_key, *keys])}
    texts.setdefault(login, key_lines(keys))
    accounts = [_account(name) for name in texts]
    return [(account, AuthorizedKeys(account), texts[account.pw_name]) for account in accounts]


def _write_keys(file, text):
    file.write(text)
    if not file.is_in_order(text):
        raise Failure(f"{file.path} was written, and is not what was written")


def _work(module):
    login, wanted = module.params["login"], module.params["password_hash"]
    if wanted and not _HASH.fullmatch(wanted):
        raise Failure("password_hash is not a hash in the form of crypt(5)")
    if wanted and login == "root":
        raise Failure("the default user is root, who gets no password to log in with")
    files = _key_files(login, module.params["manager_key"], module.params["keys"])
    passwords = _passwords(login, wanted)
    # A user without keys needs no file, but one that is there loses its keys.
    stale = [
        (file, text)
        for _user, file, text in files
        if not file.is_in_order(text) and (text or file.read())
    ]
    diff = {
        "before": _listing(
            files, lambda file, _text: file.read(), passwords, lambda _each: "as it was"
        ),
        "after": _listing(files, lambda _file, text: text, passwords, lambda each: each.kind),
    }
    if not module.check_mode:
        for file, text in stale:
            _write_keys(file, text)
        for account, file, text in files:
            if text:
                _check_sshd(account, file.path)
        for password in passwords:
            password.set()
    result = {
        "changed": bool(stale or passwords),
        "password": "set" if wanted else "none",
        "key_files": [file.path for _user, file, _text in files],
    }
    return {**result, "diff": diff} if module._diff else result


def _listing(files, text_of, passwords, state_of):
    keys = [f"{file.path}:\n{text_of(file, text)}" for _user, file, text in files]
    return "".join(keys) + "".join(
        f"password of {each.name}: {state_of(each)}\n" for each in passwords
    )


def _bounded(module):
    with Watch(module.params["timeout"], "giving the users access"):
        return _work(module)


def main():
    module = AnsibleModule(
        argument_spec={
            "login": {"type": "str", "required": True},
            "password_hash": {"type": "str", "default": "", "no_log": True},
            "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "manager_key": {"type": "str", "required": True, "no_log": False},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: _bounded(module))


if __name__ == "__main__":
    main()
