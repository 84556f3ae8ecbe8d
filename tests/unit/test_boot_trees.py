"""Trees of boot files, SSH's complaints, and lists of keys: the pure parts of the boot modules."""

import base64
import hashlib
import io
from pathlib import Path

import ansible.module_utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

MODULE_UTILS = str(Path(__file__).parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils import (  # noqa: E402 (found through the lines above)
    piseduce_authorized_keys as authorized_keys,
)
from ansible.module_utils import piseduce_ssh as ssh  # noqa: E402
from ansible.module_utils import piseduce_tree as trees  # noqa: E402
from ansible.module_utils.piseduce_process import Failure  # noqa: E402

NAMES = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/"), min_size=1
).filter(lambda name: name not in (".", ".."))


def listing(folders, files, end="end\n"):
    """What the node prints: the text of `listing_command`."""
    lines = ["folders:", ".", *(f"./{path}" for path in folders), "others:", "files:"]
    lines += [f"{hashlib.sha256(data).hexdigest()}  ./{path}" for path, data in files.items()]
    return io.BytesIO(("\n".join(lines) + "\n" + end).encode())


def parse(stream):
    return trees.parse_listing(stream, trees.Limit(1000, 1000))


@given(st.dictionaries(NAMES, st.binary(max_size=20), max_size=8))
def test_a_listing_is_read_as_it_was_written(files):
    tree = parse(listing(["overlays"], {f"overlays/{name}": data for name, data in files.items()}))
    assert tree.pop("overlays") == ""
    assert tree == {
        f"overlays/{name}": hashlib.sha256(data).hexdigest() for name, data in files.items()
    }


@given(st.data())
def test_no_cut_of_a_listing_passes_for_a_whole_one(data):
    whole = listing(["overlays"], {"config.txt": b"x", "overlays/a": b"y"}).read()
    cut = data.draw(st.integers(0, len(whole) - len(b"end\n")))
    with pytest.raises(Failure):
        parse(io.BytesIO(whole[:cut]))


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", "a\x1bb", "."])
def test_a_name_that_could_lead_elsewhere_is_refused(name):
    with pytest.raises(Failure, match="name"):
        parse(listing([], {name: b"x"}))


def test_too_many_files_are_refused():
    with pytest.raises(Failure, match="more than 2 files"):
        trees.parse_listing(listing([], dict.fromkeys("abc", b"x")), trees.Limit(2, 10))


def test_a_digest_tells_paths_and_contents_apart():
    different = [{}, {"a": "1"}, {"b": "1"}, {"a": "2"}, {"a": ""}, {"a": "1", "b": ""}]
    assert len({trees.digest(tree) for tree in different}) == len(different)
    assert trees.digest({"a": "1", "b": "2"}) == trees.digest({"b": "2", "a": "1"})


def test_names_that_cannot_be_printed_are_escaped():
    assert trees.printable("a\udcffb\nc") == r"a\xffb\nc"


@pytest.mark.parametrize(
    ("complaint", "answer"),
    [
        ("ssh: connect to host 10.0.0.1 port 22: No route to host", ssh.Answer.UNREACHABLE),
        ("ssh: connect to host 10.0.0.1 port 22: Connection timed out", ssh.Answer.UNREACHABLE),
        ("ssh: connect to host 10.0.0.1 port 22: Connection refused", ssh.Answer.REFUSED),
        ("Connection timed out during banner exchange", ssh.Answer.HANGS),
        ("No ED25519 host key is known for pi-1\nHost key verification failed.",)
        + (ssh.Answer.UNKNOWN_KEY,),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", ssh.Answer.OTHER_KEY),
        ("root@10.0.0.1: Permission denied (publickey).", ssh.Answer.DENIED),
        ("kex_exchange_identification: read: Connection reset by peer", ssh.Answer.BROKEN),
    ],
)
def test_what_ssh_says_is_understood(complaint, answer):
    assert ssh.answer_of(complaint) is answer


def test_the_ssh_command_keeps_strange_paths_and_addresses_in_place():
    node = {
        "address": "-oProxyCommand=evil",
        "port": 22,
        "user": "root",
        "key_file": "/a key",
        "known_hosts_file": "/100% known",
        "host_key_alias": "nfspi",
    }
    command = ssh.ssh_command(node, "true")
    assert command[-3:] == ["--", "-oProxyCommand=evil", "true"]
    assert 'UserKnownHostsFile="/100%% known"' in command
    assert command[command.index("-i") + 1] == "/a key"


def public_key(kind, blob_kind=None, comment=""):
    text = (blob_kind or kind).encode()
    blob = len(text).to_bytes(4, "big") + text + bytes(36)
    return f"{kind} {base64.b64encode(blob).decode()}{comment}"


def test_keys_are_written_once_each_in_order():
    one, two = public_key("ssh-ed25519"), public_key("ssh-rsa", comment=" me at home")
    assert authorized_keys.key_lines([two, one + "\n", two]) == f"{two}\n{one}\n"
    assert authorized_keys.key_lines([]) == ""


@pytest.mark.parametrize(
    "key",
    [
        public_key("ssh-ed25519", "ssh-rsa"),
        public_key("ssh-dss"),
        public_key("ssh-ed25519") + "\nssh-ed25519 AAAA",
        public_key("ssh-ed25519", comment=" \x1b[2J"),
        "restrict " + public_key("ssh-ed25519"),
        "ssh-ed25519 AAAA=A==",
        "",
    ],
)
def test_what_is_no_key_is_refused(key):
    with pytest.raises(Failure, match="not an SSH public key"):
        authorized_keys.key_lines([key])
