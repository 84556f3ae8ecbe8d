"""The reader of block maps, and how an image is cut into windows by them."""

import hashlib
import re
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
    piseduce_bmap,
    piseduce_transfer,
)

DIGEST = "ab" * 32


def block_map(ranges, *, image=10 * 4096, block=4096, **changes):
    """A block map's text with a correct digest of its own; `changes` replace its fields."""
    mapped = sum(last - first + 1 for first, last in ranges)
    fields = {
        "ImageSize": image,
        "BlockSize": block,
        "BlocksCount": -(-image // block),
        "MappedBlocksCount": mapped,
        "ChecksumType": "sha256",
        "BmapFileChecksum": "0" * 64,
        **changes,
    }
    lines = [f"    <{name}> {value} </{name}>" for name, value in fields.items()]
    lines += ["    <BlockMap>"]
    lines += [
        f'        <Range chksum="{DIGEST}"> {first}-{last} </Range>' for first, last in ranges
    ]
    lines += ["    </BlockMap>", "</bmap>"]
    text = '<?xml version="1.0" ?>\n<bmap version="2.0">\n' + "\n".join(lines) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.replace("0" * 64, digest, 1).encode()


class TestBlockMap:
    def test_ranges_are_read_in_bytes(self):
        found = piseduce_bmap.parse(block_map([(0, 1), (4, 4), (9, 9)], image=10 * 4096 - 100))
        assert found.image_bytes == 40860
        assert [(part.start, part.end) for part in found.ranges] == [
            (0, 8192),
            (16384, 20480),
            (36864, 40860),
        ]
        assert found.mapped_bytes == 8192 + 4096 + 3996

    def test_single_block_is_written_as_one_number(self):
        data = block_map([(0, 1), (4, 4)]).replace(b"4-4", b"4")
        old = re.search(rb"BmapFileChecksum> (\w+)", data)[1]
        data = data.replace(old, b"0" * 64)
        data = data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)
        assert len(piseduce_bmap.parse(data).ranges) == 2

    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            (b"", "not XML"),
            (b"<bmap/>", "no <bmap version"),
            (b"<other version='2.0'/>", "no <bmap version"),
            (b"<bmap version='1.3'/>", "only 2.x"),
            (b"<bmap version='3.0'/>", "only 2.x"),
            (b"<bmap version='2.0'/>", "lacks ImageSize"),
            (b"<!DOCTYPE bmap><bmap version='2.0'/>", "document type or an entity"),
            (
                b'<!DOCTYPE b [<!ENTITY a "a"><!ENTITY c "&a;&a;">]><bmap version="2.0">&c;</bmap>',
                "document type or an entity",
            ),
            (b'<?xml version="1.0" encoding="no-such"?><bmap/>', "encoding"),
            (block_map([(0, 1)], ChecksumType="md5"), "not sha256"),
            (block_map([(0, 1)], BlockSize=4095), "power of two"),
            (block_map([(0, 1)], BlockSize=0), "power of two"),
            (block_map([(0, 1)], ImageSize=0), "do not make an image"),
            (block_map([(0, 1)], ImageSize=-1), "not a number"),
            (block_map([(0, 1)], ImageSize="1e9"), "not a number"),
            (block_map([(0, 1)], ImageSize="9" * 40), "not a number"),
            (block_map([(0, 1)], BlocksCount=11), "do not make an image"),
            (block_map([(0, 1)], MappedBlocksCount=3), "lists 2"),
            (block_map([(0, 10)]), "beyond the image's 10 blocks"),
            (block_map([(4, 5), (0, 1)]), "out of order"),
            (block_map([(0, 4), (4, 5)]), "out of order"),
            (block_map([(5, 4)], MappedBlocksCount=0), "out of order"),
            (block_map([(0, 1)]).replace(b"<ImageSize>", b"<ImageSize >", 1), "damaged"),
            (block_map([(0, 1)]) + b" ", "damaged"),
            (block_map([(0, 1)], ImageSize="1</ImageSize><ImageSize>2"), "twice"),
        ],
    )
    def test_map_that_contradicts_itself_is_refused(self, data, complaint):
        with pytest.raises(piseduce_bmap.BadMap, match=re.escape(complaint)):
            piseduce_bmap.parse(data)

    @given(st.binary(max_size=300))
    def test_any_bytes_are_refused_with_a_reason(self, data):
        with pytest.raises(piseduce_bmap.BadMap):
            piseduce_bmap.parse(data)

    @given(st.data())
    def test_damaged_map_is_refused_or_means_the_same(self, data):
        good = block_map([(0, 1), (4, 7)])
        place = data.draw(st.integers(0, len(good) - 1))
        bad = bytearray(good)
        bad[place] = data.draw(st.integers(0, 255))
        try:
            assert piseduce_bmap.parse(bytes(bad)) == piseduce_bmap.parse(good)
        except piseduce_bmap.BadMap:
            assert bytes(bad) != good


@st.composite
def maps(draw):
    """A valid block map of an image that need not end at a block's end."""
    block = draw(st.sampled_from([512, 4096, 1 << 20]))
    blocks = draw(st.integers(1, 40_000_000 // block + 2))
    image = blocks * block - draw(st.integers(0, block - 1))
    cuts = sorted(draw(st.sets(st.integers(0, blocks), max_size=40)))
    ranges = [(a, b - 1) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    return piseduce_bmap.parse(block_map(ranges, image=image, block=block))


class TestWindows:
    @given(maps())
    def test_windows_cover_the_image_and_pieces_the_ranges(self, found):
        position, pieces = 0, {}
        for window in piseduce_transfer.windows(found):
            assert window.start == position
            assert window.start % piseduce_transfer.WINDOW == 0
            assert 0 < window.end - window.start <= piseduce_transfer.WINDOW
            position = window.end
            for piece in window.pieces:
                assert window.start <= piece.start < piece.end <= window.end
                pieces.setdefault(piece.index, []).append((piece.start, piece.end))
        assert position == found.image_bytes
        assert len(pieces) == len(found.ranges)
        for index, part in enumerate(found.ranges):
            parts = pieces[index]
            assert (parts[0][0], parts[-1][1]) == (part.start, part.end)
            assert all(a[1] == b[0] for a, b in zip(parts, parts[1:], strict=False))

    @given(maps(), st.integers(0, 1 << 20))
    def test_extents_hold_all_pieces_and_no_large_hole(self, found, gap):
        for window in piseduce_transfer.windows(found):
            extents = piseduce_transfer.extents(window.pieces, gap)
            for piece in window.pieces:
                assert any(start <= piece.start and piece.end <= end for start, end in extents)
            extra = sum(end - start for start, end in extents)
            extra -= sum(piece.end - piece.start for piece in window.pieces)
            assert 0 <= extra <= gap * len(window.pieces)
            for (_, end), (start, _) in zip(extents, extents[1:], strict=False):
                assert end + gap <= start

    def test_head_is_within_one_window(self):
        assert piseduce_transfer.HEAD < piseduce_transfer.WINDOW
