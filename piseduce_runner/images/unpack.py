"""From the file that a user has to the raw image in it."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.images.image_file import ImageFile, opened
from piseduce_runner.images.steps import Progress


@contextmanager
def raw_image(file: Path, scratch: Path, progress: Progress) -> Iterator[ImageFile]:
    """The raw image in `file`, for the length of a block.

    Raises UserError if there is none, or not one only.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise UserError(f"{file}: not a file")
        with opened(file, str(file)) as image:
            yield image
    except FileNotFoundError:
        raise UserError(f"{file}: no such image file") from None
