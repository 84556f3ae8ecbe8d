"""Copying a card to the manager: the very bytes, or an error that names the cause."""

import os
from pathlib import Path

import ansible.module_utils
import pytest

MODULE_UTILS = str(Path(__file__).resolve().parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils import piseduce_fetch  # noqa: E402
from ansible.module_utils.piseduce_process import Failure  # noqa: E402
from ansible.module_utils.piseduce_progress import Progress  # noqa: E402

KIB = 1024
SIZE = 3 << 20
PARTS = [
    {"start": 0, "end": 64 * KIB, "extents": [(0, 64 * KIB)]},
    {"start": 1 << 20, "end": SIZE, "extents": [(1 << 20, 1200 * KIB), (2 << 20, SIZE - 10)]},
]


@pytest.fixture
def card(tmp_path) -> Path:
    """What is a device on a node is a file here."""
    file = tmp_path / "card"
    content = bytearray(os.urandom(SIZE))
    content[2300 * KIB : 2700 * KIB] = bytes(400 * KIB)
    file.write_bytes(content)
    return file


@pytest.fixture
def on_this_machine(monkeypatch):
    """The node's shell is one here; gives what to change in the command for it."""
    change = {"from": "", "to": ""}

    def command(_node, remote):
        return ["sh", "-c", remote.replace(change["from"], change["to"])]

    monkeypatch.setattr(piseduce_fetch, "ssh_command", command)
    return change


@pytest.fixture
def fetch(card, tmp_path):
    def run(parts=PARTS):
        folder = tmp_path / "copy"
        folder.mkdir()
        progress = Progress(None, 1)
        with (folder / "one").open("wb") as one, (folder / "two").open("wb") as two:
            two.truncate(SIZE - (1 << 20))
            targets = [one.fileno(), two.fileno()]
            piseduce_fetch.fetch({}, str(card), parts, targets, folder, progress)
        assert progress.done == sum(b - a for part in parts for a, b in part["extents"])
        return folder

    return run


def test_what_is_in_use_is_copied_to_its_place_and_nothing_else(on_this_machine, fetch, card):
    folder, content = fetch(), card.read_bytes()
    assert (folder / "one").read_bytes() == content[: 64 * KIB]
    two = (folder / "two").read_bytes()
    assert two[: 176 * KIB] == content[1 << 20 : 1200 * KIB]
    assert two[176 * KIB : 1 << 20] == bytes((1 << 20) - 176 * KIB)
    assert two[1 << 20 :] == content[2 << 20 : SIZE - 10] + bytes(10)
    assert (folder / "two").stat().st_blocks * 512 < 1 << 20  # zeros are holes


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("hexdigest()", "hexdigest()[::-1]", "the digests differ"),
        ("hexdigest()", "hexdigest()[1:]", "the node stopped in the middle"),
        ("buffer.write(data)", "buffer.write(data[1:])", "the node stopped in the middle"),
        ("zstd -q -1 -c", "nothing-like-zstd", "nothing-like-zstd"),
        ("zstd -q -1 -c", "zstd -q -1 -c | head -c 9999", "the node stopped in the middle"),
    ],
)
def test_what_is_not_what_was_read_is_an_error(on_this_machine, fetch, before, after, complaint):
    on_this_machine |= {"from": before, "to": after}
    with pytest.raises(Failure, match=complaint):
        fetch()


def test_a_card_that_ends_early_is_an_error(on_this_machine, fetch):
    part = {"start": 0, "end": 2 * SIZE, "extents": [(0, 2 * SIZE)]}
    with pytest.raises(Failure, match=f"the card ends at byte {SIZE}"):
        fetch([part])


def test_a_full_manager_is_an_error_at_once(on_this_machine, fetch, monkeypatch):
    monkeypatch.setattr(piseduce_fetch, "KEPT_FREE", 1 << 60)
    with pytest.raises(Failure, match="not enough space"):
        fetch()


def test_why_ssh_failed_is_said(monkeypatch, fetch):
    refused = ["sh", "-c", "echo Connection refused >&2; exit 255"]
    monkeypatch.setattr(piseduce_fetch, "ssh_command", lambda _node, _remote: refused)
    with pytest.raises(Failure, match="connection refused"):
        fetch()
