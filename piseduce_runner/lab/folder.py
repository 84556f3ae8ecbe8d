"""A lab's folder: where its files lie, what it is called elsewhere, and whether it is alive."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.lab.settings import DEFAULT_NAME, Settings, check_name

MARKER = "PISEDUCE_LAB"  # in the environment of every process of a lab: the lab's folder


def labs_root() -> Path:
    """The folder that holds all labs."""
    return Path(os.environ.get("PISEDUCE_LAB_ROOT") or "/var/lib/piseduce-lab").resolve()


def cache_root() -> Path:
    """Where built systems are kept between labs."""
    return Path(os.environ.get("PISEDUCE_LAB_CACHE") or "/var/cache/piseduce-lab").resolve()


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, mode)
        stream.write(text)
    temporary.replace(path)


class LabFolder:
    """Paths and names of one lab. Creating the object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        # Labs of the same name may live under different roots: names outside the folder carry a
        # digest of its path. Interface names have at most 15 characters (IFNAMSIZ).
        self.tag = hashlib.sha256(os.fsencode(path)).hexdigest()[:7]
        self.bridge = f"plab{self.tag}"

    @classmethod
    def named(cls, name: str) -> "LabFolder":
        return cls(labs_root() / name)

    # In the folder

    @property
    def settings_file(self) -> Path:
        return self.path / "settings.json"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def supervisor_lock(self) -> Path:
        return self.path / "supervisor.lock"

    @property
    def supervisor_log(self) -> Path:
        return self.path / "supervisor.log"

    @property
    def site(self) -> Path:
        return self.path / "site"

    @property
    def layer(self) -> Path:
        """What this lab adds to the deploy OS: keys and host name."""
        return self.path / "deploy-os-layer"

    @property
    def manager(self) -> Path:
        """Configuration, state and logs of dnsmasq and nginx."""
        return self.path / "manager"

    @property
    def tftp(self) -> Path:
        return self.path / "tftp"

    @property
    def plan_file(self) -> Path:
        """What the supervisor is to run: paths of configurations and systems, SNMP passwords."""
        return self.path / "plan.json"

    def card(self, node: str) -> Path:
        return self.path / "cards" / f"{node}.img"

    def board(self, node: str) -> Path:
        """A board's log, console and what its firmware fetched."""
        return self.path / "boards" / node

    # Elsewhere

    def namespace(self, index: int) -> str:
        """Network namespace of a board."""
        return f"{self.bridge}-{index}"

    def link(self, index: int) -> str:
        """The bridge's end of a board's cable."""
        return f"{self.bridge}-{index}"

    def owns(self, name: str) -> bool:
        """Whether a namespace or interface of this name is this lab's."""
        return name == self.bridge or name.startswith(f"{self.bridge}-")

    # State

    def exists(self) -> bool:
        return self.path.is_dir()

    def settings(self) -> Settings:
        """UserError: the folder is not (or no longer) a lab's."""
        try:
            return Settings.from_file(self.settings_file)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{self.path}: left half-built; run: piseduce-run lab down --name {self.name}"
            ) from error

    def is_alive(self) -> bool:
        """Whether the supervisor runs: it holds a lock that ends with it, however it ends."""
        try:
            descriptor = os.open(self.supervisor_lock, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def status(self) -> dict:
        """The last status that the supervisor wrote; empty before it wrote one."""
        try:
            return json.loads(self.status_file.read_text("utf-8"))
        except FileNotFoundError:
            return {}


def all_labs() -> list[LabFolder]:
    """Every lab folder under the root, up or not, in the order of their names."""
    try:
        return [LabFolder(path) for path in sorted(labs_root().iterdir()) if path.is_dir()]
    except (FileNotFoundError, PermissionError):
        return []


def running_lab() -> LabFolder | None:
    """The lab that commands mean when none is named: `lab` if it is up, else the only one up."""
    alive = [lab for lab in all_labs() if lab.is_alive()]
    for lab in alive:
        if lab.name == DEFAULT_NAME:
            return lab
    return alive[0] if len(alive) == 1 else None


def the_lab(name: str | None) -> LabFolder:
    """The running lab of that name, or the one that is up. UserError: there is none, or several."""
    if name is not None:
        check_name(name)
    chosen = LabFolder.named(name) if name else running_lab()
    if chosen is None:
        alive = [one.name for one in all_labs() if one.is_alive()]
        if alive:
            raise UserError(f"several labs are up: {', '.join(alive)}; choose with --name")
        chosen = LabFolder.named(DEFAULT_NAME)
    if chosen.is_alive():
        return chosen
    if chosen.exists():
        raise UserError(
            f"lab {chosen.name} was not taken down, but does not run any more; "
            f"run: piseduce-run lab down --name {chosen.name}"
        )
    raise UserError(f"lab {chosen.name} is not up; start it with: piseduce-run lab up")


@contextmanager
def machine_lock() -> Iterator[None]:
    """Held while addresses and names of this machine are chosen: two `lab up` may race."""
    descriptor = os.open("/run/piseduce-lab.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
