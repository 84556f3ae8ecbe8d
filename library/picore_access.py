#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: who may log in to a piCore system, kept over its restarts."""

from __future__ import annotations

import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_authorized_keys import key_lines
from ansible.module_utils.piseduce_process import Failure, Hopeless, Watch, guarded
from ansible.module_utils.piseduce_ssh import ARGUMENT, run_on_node

DOCUMENTATION = r"""
module: picore_access
short_description: Sets who may log in to a piCore system, and how
description:
  - Gives the default user a password and keys, the manager's and the users'. It has exactly these
    keys afterwards. Without a password it has none, and loses the one of the image.
  - piCore has its system in RAM. So the backup that is restored at each start is written anew, by
    C(filetool.sh -b), and it is read whether the password and the keys are in it.
  - Works over SSH from the manager. The system needs nothing but a shell and busybox; sudo must let
    the default user be root.
  - The password comes as a hash, which reaches the system by standard input only.
options:
  node:
    description: How to reach the system; O(node.user) is the default user.
    type: dict
    required: true
    suboptions:
      address:
        description: The node's address.
        type: str
        required: true
      port:
        description: Its SSH port.
        type: int
        default: 22
      user:
        description: Whom to log in as.
        type: str
        default: root
      key_file:
        description: The manager's private key.
        type: path
        required: true
      known_hosts_file:
        description: The host keys that are known. Any other is refused.
        type: path
        required: true
      host_key_alias:
        description: The name under which the system's key is known.
        type: str
        required: true
  password_hash:
    description: Hash of the password in the form of crypt(5); empty for no password.
    type: str
    default: ""
  keys:
    description: SSH public keys of the users.
    type: list
    elements: str
    default: []
  manager_key:
    description: SSH public key of the manager.
    type: str
    required: true
  timeout:
    description: Seconds after which the work is given up.
    type: int
    required: true
attributes:
  check_mode:
    support: full
    description: Tells whether anything would change.
  diff_mode:
    support: none
    description: Passwords are not shown.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Give the users access
  picore_access:
    node:
      address: 10.77.0.101
      user: tc
      key_file: /etc/piseduce/keys/manager_ed25519
      known_hosts_file: /etc/piseduce/known_hosts
      host_key_alias: node-1
    keys: "{{ user_keys }}"
    manager_key: "{{ manager_public_key }}"
    timeout: 60
  delegate_to: localhost
"""

RETURN = r"""
password:
  description: Whether the default user has the password that was asked for, C(set), or C(none).
  returned: success
  type: str
  sample: set
"""

_HASH = re.compile(r"\$[0-9a-z]+\$[./0-9A-Za-z$=,+-]{8,500}")  # crypt(5)
_NOTHING = "*"  # shadow(5): no password matches it

# The first line of standard input is the field of shadow(5), the rest the keys' file. It is read
# by the shell itself, so it is in nobody's arguments.
_READ = """
set -eu
umask 077
user=$(id -un)
IFS= read -r field
keys=$(cat)
shadow() { sed -n "s/^$user:\\([^:]*\\):.*/\\1/p"; }
has() {  # field and keys, as they are
    [ "$1" = "$field" ] && [ "$2" = "$keys" ]
}
old=$(sudo -n cat /etc/shadow | shadow)
[ -n "$(sudo -n grep "^$user:" /etc/shadow)" ] || exit 91
file=$HOME/.ssh/authorized_keys
name=$(cat /etc/sysconfig/mydata 2> /dev/null || echo mydata)
backup=$(readlink -f /etc/sysconfig/tcedir)/$name.tgz
kept() { sudo -n tar -xzOf "$backup" "$1" 2>/dev/null; }
is_kept() { has "$(kept etc/shadow | shadow)" "$(kept "${file#/}")"; }
if has "$old" "$(cat "$file" 2>/dev/null)" && is_kept; then
    echo unchanged
    exit 0
fi
"""
_WRITE = """
mkdir -p "$HOME/.ssh"
chmod 700 "$HOME/.ssh"
printf '%s\\n' "$keys" > "$file.new"
chmod 600 "$file.new"
mv "$file.new" "$file"
# Written whole beside the old one: at every instant there is a file with all users.
printf '%s\\n' "$field" | sudo -n sh -c '
    set -eu
    umask 077
    IFS= read -r field
    while IFS= read -r line; do
        case $line in
            "$1":*) rest=${line#*:}; line=$1:$field:${rest#*:} ;;
        esac
        printf "%s\\n" "$line"
    done < /etc/shadow > /etc/shadow.new
    chmod 640 /etc/shadow.new
    mv /etc/shadow.new /etc/shadow' sh "$user"
sudo -n grep -qxF etc/shadow /opt/.filetool.lst ||
    echo etc/shadow | sudo -n tee -a /opt/.filetool.lst > /dev/null
said=$(filetool.sh -b 2>&1 < /dev/null) || { echo "filetool.sh -b: $said" >&2; exit 92; }
has "$(sudo -n cat /etc/shadow | shadow)" "$(cat "$file")" || exit 93
is_kept || exit 94
echo changed
"""
_REASONS = {
    91: "the system has no password entry for the user",
    93: "the password or the keys are not what they were set to",
    94: "the backup that filetool.sh wrote does not hold the password and the keys",
}


def _work(node, password_hash, keys, manager_key, timeout, check_mode):
    if password_hash and not _HASH.fullmatch(password_hash):
        raise Hopeless("password_hash is not a hash in the form of crypt(5)")
    script = _READ + ("echo changed" if check_mode else _WRITE)
    # The login shell may be any; ours gets the input.
    text = f"{password_hash or _NOTHING}\n{key_lines([manager_key, *keys])}"
    with Watch(timeout, "giving the users access"):
        what = "setting password and keys"
        status, said = run_on_node(node, script, text, what, accept=(0, *_REASONS))
    if status:
        raise Failure(_REASONS[status])
    return {
        "changed": said.strip().endswith("unchanged") is False,
        "password": "set" if password_hash else "none",
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "node": {**ARGUMENT, "required": True},
            "password_hash": {"type": "str", "default": "", "no_log": True},
            "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "manager_key": {"type": "str", "required": True, "no_log": False},
            "timeout": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: _work(**module.params, check_mode=module.check_mode))


if __name__ == "__main__":
    main()
