# SPDX-License-Identifier: MIT
"""An image on the manager's web server: its block map, and its bytes as a stream."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import subprocess
import tempfile

from ansible.module_utils.piseduce_bmap import LARGEST_MAP, parse
from ansible.module_utils.piseduce_process import Failure, ending, kill, one_line, spawn

ARGUMENTS = {
    "url": {"type": "str", "required": True},
    "block_map": {"type": "str", "default": "image.bmap"},
    "block_map_sha256": {"type": "str", "required": True},
    "image_bytes": {"type": "int", "required": True},
}
"""Options that say which image is meant, by its block map."""

_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ, which Python has from 3.10 on
_PIPE = 1 << 20  # bytes; the most that fs.pipe-max-size allows by default
_CURL = [
    "curl",
    "--disable",  # no ~/.curlrc
    "--fail",
    "--silent",
    "--show-error",
    "--globoff",
    "--noproxy",
    "*",
    "--proto",
    "=http,https",
    "--connect-timeout",
    "10",
    # A server that sends nothing at all for a minute has gone; a busy one is waited for.
    "--speed-limit",
    "1",
    "--speed-time",
    "60",
]
_CURL_WRITE_ERROR = 23  # curl(1), "EXIT CODES": whoever reads from it has gone


def fetch_block_map(options):
    """Download a block map and read it.

    :param options: values of :data:`ARGUMENTS`
    :returns: :class:`BlockMap`
    :raises Failure: it cannot be fetched, is not the one the environment was made with, or is of
        another image
    """
    url = join(options["url"], options["block_map"])
    with tempfile.TemporaryFile() as file:
        command = [*_CURL, "--max-filesize", str(LARGEST_MAP), "--output", "-", "--url", url]
        child = spawn(command, stdout=file, stderr=subprocess.PIPE)
        try:
            complaint = child.communicate()[1]
        except BaseException:
            kill(child)
            raise
        if child.returncode != 0:
            said = one_line(complaint.decode(errors="replace"))
            raise Failure(f"cannot fetch {url}: {said or ending(child.returncode)}")
        file.seek(0)
        data = file.read(LARGEST_MAP + 1)
    if hashlib.sha256(data).hexdigest() != options["block_map_sha256"].lower():
        raise Failure(f"{url} is damaged: its sha256 is not the one that the environment states")
    block_map = parse(data)
    if block_map.image_bytes != options["image_bytes"]:
        raise Failure(
            f"{url} is of an image of {block_map.image_bytes} bytes, "
            f"the environment states {options['image_bytes']}"
        )
    return block_map


def join(url, name):
    """Address of a file in an environment's folder."""
    return f"{url.rstrip('/')}/{name}"


class ImageStream:
    """The decompressed image as ``curl | zstd`` deliver it. Use as ``with ImageStream(url)``.

    Both are children of their own, so that fetching, decompressing, hashing and writing each have
    a core on a Pi. Their exit statuses are what tells a complete stream from a broken one.
    """

    def __init__(self, url):
        self.url = url

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
            self._curl = spawn(
                [*_CURL, "--url", self.url], stdout=subprocess.PIPE, stderr=self._said[0], bufsize=0
            )
            stack.callback(kill, self._curl)
            with self._curl.stdout as compressed:
                self._zstd = spawn(
                    ["zstd", "--decompress", "--stdout", "--quiet"],
                    stdin=compressed,
                    stdout=subprocess.PIPE,
                    stderr=self._said[1],
                    bufsize=0,
                )
                stack.callback(kill, self._zstd)
                _enlarge(compressed)
            stack.enter_context(self._zstd.stdout)
            _enlarge(self._zstd.stdout)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_exception):
        self._held.close()

    def fill(self, view):
        """Read as many bytes as the memory view has room for; returns fewer only at the end."""
        done = 0
        while done < len(view):
            count = self._zstd.stdout.readinto(view[done:])
            if not count:
                break
            done += count
        return done

    def finish(self):
        """Demand that the stream ends here, and ended well.

        :raises Failure: what went wrong first: fetching, decompressing, or a longer image
        """
        surplus = self._zstd.stdout.read(1)
        if surplus:
            raise Failure(f"{self.url} holds more bytes than its block map says")
        self._zstd.stdout.close()
        curl, zstd = self._curl.wait(), self._zstd.wait()
        # When zstd gives up, curl sees that nobody reads; when curl does, zstd sees a short file.
        if curl not in (0, _CURL_WRITE_ERROR) or (curl and not zstd):
            raise Failure(f"cannot fetch {self.url}: {self._complaint(0) or ending(curl)}")
        if zstd:
            raise Failure(f"cannot decompress {self.url}: {self._complaint(1) or ending(zstd)}")

    def _complaint(self, index):
        self._said[index].seek(0)
        return one_line(self._said[index].read(4000).decode(errors="replace"))


def _enlarge(pipe):
    # Fewer wake-ups; a system that refuses it is only a little slower.
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE)
