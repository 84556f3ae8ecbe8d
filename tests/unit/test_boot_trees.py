"""Trees of boot files, SSH's complaints, and lists of keys: the pure parts of the boot modules."""

import base64
import hashlib
import io
import tarfile
import tracemalloc
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


def member(kind, data=b"", name="config.txt", size=None):
    """A member of a tar archive; `size`: what its header claims, if not the truth."""
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, len(data) if size is None else size
    return header.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


class Hostile(io.RawIOBase):
    """What a node sends that goes on with zeros, as long as somebody reads."""

    def __init__(self, start):
        self._start, self.given = start, 0

    def read(self, size=-1):
        assert size >= 0, "somebody wants to read to the end"
        assert self.given < 4 << 20, "more was read than any boot file's name is long"
        data = self._start[self.given : self.given + size].ljust(size, b"x")
        self.given += size
        return data


def unpack(stream, folder):
    trees.unpack_tree(stream, folder, trees.Limit(1000, 1000))


EXTENDED = {
    "PAX": tarfile.XHDTYPE,
    "global PAX": tarfile.XGLTYPE,
    "Solaris PAX": tarfile.SOLARIS_XHDTYPE,
    "GNU long name": tarfile.GNUTYPE_LONGNAME,
    "GNU long link": tarfile.GNUTYPE_LONGLINK,
}


@pytest.mark.parametrize("kind", EXTENDED.values(), ids=EXTENDED)
@pytest.mark.parametrize(
    "before", [b"", member(tarfile.REGTYPE, b"x", "first")], ids=["1st", "2nd"]
)
def test_a_tar_header_too_large_to_be_one_is_refused_unread(kind, before, tmp_path):
    stream = Hostile(before + member(kind, size=6 << 30))
    with pytest.raises(Failure, match="header of 6442450944 bytes") as failure:
        unpack(stream, tmp_path)
    assert not isinstance(failure.value, trees.Truncated)
    assert stream.given <= 64 << 10


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_unpacked(format, tmp_path):
    archive = io.BytesIO()
    name = "a" * 150 + "/" + "b" * 200
    with tarfile.open(fileobj=archive, mode="w", format=format) as writer:
        folder = tarfile.TarInfo("a" * 150)
        folder.type = tarfile.DIRTYPE
        writer.addfile(folder)
        file = tarfile.TarInfo(name)
        file.size = 1
        writer.addfile(file, io.BytesIO(b"x"))
    unpack(io.BytesIO(archive.getvalue()), tmp_path)
    assert (tmp_path / name).read_bytes() == b"x"


def test_headers_upon_headers_are_refused(tmp_path):
    chain = member(tarfile.GNUTYPE_LONGNAME, b"name") * 5000
    with pytest.raises(Failure, match="headers upon headers"):
        unpack(io.BytesIO(chain), tmp_path)


def test_a_header_for_all_files_is_refused(tmp_path):
    with pytest.raises(Failure, match="a header for all its files"):
        unpack(io.BytesIO(member(tarfile.XGLTYPE, b"13 comment=x\n")), tmp_path)


def test_members_that_count_as_nothing_do_not_add_up(tmp_path):
    """An archive may name its own folder as often as it likes, each time with a large header."""
    comment = b"60000 comment=" + b"x" * 59985 + b"\n"
    folder = member(tarfile.XHDTYPE, comment) + member(tarfile.DIRTYPE, name="./")
    archive = io.BytesIO(folder * 200 + bytes(1024))
    tracemalloc.start()
    try:
        unpack(archive, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def sparse_of_gnu():
    header = bytearray(member(tarfile.GNUTYPE_SPARSE))
    header[482] = 1  # the list of holes goes on in the next block
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + (b"x" * 504 + b"\1" + b"x" * 7) * 20000


def sparse_of_pax():
    records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    return member(tarfile.XHDTYPE, records) + member(
        tarfile.REGTYPE, b"9" * 12 + b"\n" + b"1\n" * 249
    )


@pytest.mark.parametrize("start", [sparse_of_gnu, sparse_of_pax])
def test_a_file_with_holes_is_refused_before_the_list_of_holes_is_read(start, tmp_path):
    stream = Hostile(start())
    with pytest.raises(Failure, match="file with holes"):
        unpack(stream, tmp_path)
    assert stream.given <= 64 << 10


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
