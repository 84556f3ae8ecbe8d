"""Looks for secrets where others could see them, all the time that something is at work."""

import os
import threading
from pathlib import Path

POLL_SECONDS = 0.1


class SecretWatch:
    """From `start` to `stop`: command lines and environments of all processes, and run folders.

    `found` names the places at which a secret was seen; `commands_seen` shows that it was looked.
    """

    def __init__(self, *secrets: str) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.found: set[str] = set()
        self.commands_seen: set[str] = set()

    def start(self) -> "SecretWatch":
        self._thread.start()
        return self

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            for process in Path("/proc").glob("[0-9]*"):
                self._look_at(process / "environ", f"environment of {process.name}")
                command = self._look_at(process / "cmdline", f"command line of {process.name}")
                words = command.decode(errors="replace").split("\0")
                self.commands_seen.update(words[:2])
            for run in Path("/run").glob("piseduce-*"):
                # Folders come and go meanwhile: os.walk passes over those that have gone.
                for folder, _, names in os.walk(run):
                    for path in (Path(folder, name) for name in names):
                        if path.is_file():
                            self._look_at(path, str(path))

    def _look_at(self, path: Path, where: str) -> bytes:
        try:
            content = path.read_bytes()
        except OSError:
            return b""  # it has gone meanwhile
        if any(secret in content for secret in self._secrets):
            self.found.add(where)
        return content
