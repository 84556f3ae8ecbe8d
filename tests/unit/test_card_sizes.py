"""Sizes and sectors: where the root partition ends, and whether a file system fills it."""

import struct
from pathlib import Path

import ansible.module_utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
MODULE_UTILS = str(ROOT / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils import (  # noqa: E402 (found through the lines above)
    piseduce_ext4,
    piseduce_process,
    piseduce_progress,
    piseduce_sectors,
)


class TestSectors:
    sectors = staticmethod(piseduce_sectors.root_partition_sectors)

    def test_size_asked_for_is_rounded_up_to_4_mib(self):
        assert self.sectors(532480, 5 * 2**30, 3072000, 31116288) == 10485760
        assert self.sectors(532480, 5 * 2**30 - 1, 3072000, 31116288) == 10485760

    def test_rest_of_the_card_is_rounded_down_to_4_mib(self):
        assert self.sectors(532480, 0, 3072000, 532480 + 4096000 + 100) == 4096000

    def test_card_as_large_as_the_image_keeps_its_partition(self):
        assert self.sectors(195693, 0, 155999, 195693 + 155999) == 155999

    @pytest.mark.parametrize(
        ("start", "asked", "image", "card", "complaint"),
        [
            (8192, 8192 * 512, 16384, 2**20, "the image needs 8388608"),
            (8192, 2**40, 16384, 2**20, "the card has room for"),
            (8192, 0, 16384, 20000, "the card has 10240000 bytes"),
            (0, 0, 16384, 2**20, "make no partition"),
            (8192, -1, 16384, 2**20, "make no partition"),
            (8192, 3 * 2**40, 16384, 2**40, "the card has room for"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, start, asked, image, card, complaint):
        with pytest.raises(piseduce_sectors.DoesNotFit, match=complaint):
            self.sectors(start, asked, image, card)

    @given(
        start=st.integers(1, 2**22),
        asked=st.integers(0, 2**42),
        image=st.integers(1, 2**25),
        card=st.integers(1, 2**33),
    )
    def test_partition_holds_the_image_and_is_on_the_card(self, start, asked, image, card):
        try:
            found = self.sectors(start, asked, image, card)
        except piseduce_sectors.DoesNotFit:
            # Refused only if it really does not fit.
            fits = start + image <= min(card, 2**32 - 1)
            room = (min(card, 2**32 - 1) - start) // 8192 * 8192 * 512
            assert not fits or (asked and (asked < image * 512 or asked > room))
            return
        assert image <= found
        assert start + found <= min(card, 2**32 - 1)
        assert asked <= found * 512 < max(asked, image * 512, (card - start) * 512) + 2**22
        assert found % 8192 == 0 or (asked == 0 and found == image)


def superblock(blocks, *, log=2, state=1, incompat=0, high=0, magic=0xEF53):
    data = bytearray(1024)
    struct.pack_into("<I", data, 0x04, blocks)
    struct.pack_into("<I", data, 0x18, log)
    struct.pack_into("<HH", data, 0x38, magic, state)
    struct.pack_into("<I", data, 0x60, incompat)
    struct.pack_into("<I", data, 0x150, high)
    return bytes(data)


class TestSuperblock:
    def test_size_and_state_are_read(self):
        found = piseduce_ext4.parse_superblock(superblock(1000, state=3, incompat=0x4))
        assert (found.blocks, found.block_bytes) == (1000, 4096)
        assert found.clean
        assert found.errors
        assert found.replay

    def test_upper_half_counts_only_with_the_64bit_feature(self):
        assert piseduce_ext4.parse_superblock(superblock(1, high=1)).blocks == 1
        assert (
            piseduce_ext4.parse_superblock(superblock(1, high=1, incompat=0x80)).blocks == 2**32 + 1
        )

    @pytest.mark.parametrize(
        "data", [b"", bytes(1024), superblock(1, magic=0), superblock(1, log=60)]
    )
    def test_anything_else_is_refused(self, data):
        with pytest.raises(piseduce_process.Failure):
            piseduce_ext4.parse_superblock(data)

    def test_filling_means_to_within_one_block(self):
        found = piseduce_ext4.parse_superblock(superblock(1000))
        assert piseduce_ext4.fills(found, 4096 * 1000)
        assert piseduce_ext4.fills(found, 4096 * 1001 - 1)
        assert not piseduce_ext4.fills(found, 4096 * 1001)
        assert not piseduce_ext4.fills(found, 4096 * 1000 - 1)


def test_a_long_hole_moves_the_percent_and_makes_no_rate():
    progress = piseduce_progress.Progress(None, 100, holes=1600)
    assert progress.percent() == 0
    progress.passed += 800
    assert progress.percent() == 25
    progress.done += 50
    assert progress.percent() == 50
