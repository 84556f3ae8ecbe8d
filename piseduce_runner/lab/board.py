"""A simulated board: powered by a switch port, it boots as its TFTP folder tells it to."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from piseduce_runner.lab import procfs
from piseduce_runner.lab.card import Card, stop_file_system
from piseduce_runner.lab.settings import Node

HERE = Path(__file__).resolve().parent
# What a node must not do to the machine whose kernel it shares: set the clock, load modules...
CAPABILITIES_TAKEN = "-sys_time,-sys_module,-sys_rawio,-syslog,-wake_alarm"
GONE_WITHIN = 20.0  # seconds that a killed board may take to vanish


class Booted(Enum):
    """What runs on a board, as far as its boot loader and kernel can tell."""

    OFF = "off"  # no power
    BOOTING = "booting"  # firmware or kernel
    NFS = "nfs"  # the deploy OS was started
    CARD = "card"  # the init of the system on the card was started
    DEAD = "dead"  # powered, and nothing happens any more


@dataclass(frozen=True)
class BootOptions:
    """How the boards of a lab boot. Times in seconds."""

    deploy_os: Path
    layer: Path
    firmware_seconds: float
    kernel_seconds: float


@dataclass
class Defects:
    """What a board does wrong on purpose. May be changed at any time.

    `hangs_at_reboot`: it goes down, and not up again without a power cycle; `boots_card`: its card
    is the root, whatever cmdline.txt says; `card_pulled`: its slot is empty from the next boot on;
    `at_start`: each is asked at every boot, with whether power has just come; the first answer that
    is not empty is why the board hangs instead.
    """

    hangs_at_reboot: bool = False
    boots_card: bool = False
    card_pulled: bool = False
    at_start: list[Callable[[bool], str]] = field(default_factory=list)


class Board:
    """One board. `set_power` is the plug; everything else follows from it.

    `changed` is called after each change of `booted` or `reason`.
    """

    def __init__(
        self,
        node: Node,
        namespace: str,
        folder: Path,
        card: Card | None,
        options: BootOptions,
        changed: Callable[[], None],
    ) -> None:
        self.node = node
        self.card = card
        self.booted = Booted.OFF
        self.reason = ""
        self.defects = Defects()
        self.namespace = namespace
        self._folder = folder
        self._options = options
        self._changed = changed
        self._powered = False
        self._unplugged = False  # the power was away since the running system was started
        self._wake = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._life: asyncio.Task[None] | None = None
        self._cut = ExitStack()  # what is to be done to the card once everything has gone
        folder.mkdir(parents=True, exist_ok=True)

    def set_power(self, on: bool) -> None:
        """Power comes or goes, at once. What has to wait is done by `run`."""
        self._powered = on
        if not on and not self._unplugged:
            self._unplugged = True
            self._pull_plug()
        self._wake.set()

    def crash(self) -> None:
        """A kernel panic: everything stops where it is, and the power stays."""
        self._pull_plug()

    @property
    def init(self) -> int | None:
        """PID of the board's first process, as this machine counts; None when there is none."""
        if self._process is None or self._process.returncode is not None:
            return None
        return next(iter(procfs.children(self._process.pid)), None)

    def processes(self) -> set[int]:
        """All processes of the board, its first one included."""
        outside = {self._process.pid} if self._process else set()
        return self._remains() - outside

    async def run(self) -> None:
        """Follows the power until cancelled; then the board is off and gone."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._unplugged:
                    await self._clear_away()
                    # It may have come and gone meanwhile: nothing was running then.
                    self._unplugged = False
                if self._powered and self._life is None:
                    # Not OFF from here on, until all that is started now has gone again.
                    self._set(Booted.BOOTING, "power on")
                    self._life = asyncio.create_task(self._live())
        finally:
            self.set_power(False)
            await self._clear_away()

    # Power cut

    def _pull_plug(self) -> None:
        """Stops the card's file systems where they are, and kills everything."""
        if self._process is None or self._process.returncode is not None:
            return
        try:
            if self.card is not None:
                self._cut.enter_context(self.card.about_to_lose_power())
                for init in procfs.children(self._process.pid):
                    self._stop_file_systems(init, self.card)
        except OSError as error:
            self._note(f"power cut: {error}")
        self._kill()

    def _stop_file_systems(self, init: int, card: Card) -> None:
        numbers = card.numbers()
        try:
            mounts = list(procfs.mounts_of(init))
        except (FileNotFoundError, ProcessLookupError):
            return  # it has just ended by itself
        for number, point, _ in mounts:
            if number in numbers:
                try:
                    stop_file_system(f"/proc/{init}/root{point}")
                except OSError as error:
                    self._note(f"power cut: {point} could not be stopped: {error.strerror}")

    def _kill(self) -> None:
        """SIGKILL to the first process of the board's PID namespace ends all of them."""
        for init in procfs.children(self._process.pid):
            try:
                os.kill(init, signal.SIGKILL)
            except ProcessLookupError:
                continue

    async def _clear_away(self) -> None:
        """Waits until nothing of the board is left; then the card loses its unflushed writes."""
        if self._life is not None:
            limit = time.monotonic() + GONE_WITHIN
            while not self._life.done() or self._remains():
                if self._process is not None and self._process.returncode is None:
                    self._kill()
                if time.monotonic() > limit:
                    self._note(f"power cut: processes {sorted(self._remains())} do not end")
                    break
                await asyncio.wait([self._life], timeout=0.01)
                if self._life.done() and self._remains():
                    await asyncio.sleep(0.01)
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
            self._life = None
        try:
            if self.card is not None:
                await self.card.wait_unused()
        except OSError as error:
            self._note(f"power cut: {error}")
        try:
            self._cut.close()
        except (OSError, RuntimeError) as error:
            self._note(f"power cut: {error}")
        self._set(Booted.OFF)

    def _remains(self) -> set[int]:
        namespace = procfs.namespace_id(self.namespace)
        found = procfs.processes_in({namespace}) if namespace else set()
        return {pid for pid in found if not procfs.is_zombie(pid)}

    # Life

    async def _live(self) -> None:
        """From power on until the system halts, dies or is killed; reboots are part of it."""
        power_came = True
        while True:
            if hangs := self._hangs(power_came):
                self._set(Booted.DEAD, hangs)
                return
            power_came = False
            try:
                status = await self._boot_once()
            except OSError as error:  # of this machine, not of the board
                self._set(Booted.DEAD, f"the lab cannot start it: {error}")
                return
            if self._unplugged:
                return
            if status == -signal.SIGHUP:  # reboot(2) in a PID namespace, see pid_namespaces(7)
                self._note("reboot")
                if self.defects.hangs_at_reboot:
                    self._set(Booted.DEAD, "hangs in its reboot")
                    return
                try:
                    if self.card is not None:
                        await self.card.wait_unused()
                except TimeoutError as error:
                    self._set(Booted.DEAD, f"reboot: {error}")
                    return
                continue
            if status == -signal.SIGINT:
                self._set(Booted.DEAD, "halted by its own system")
            else:
                how = f"signal {-status}" if status < 0 else f"exit status {status}"
                self._set(Booted.DEAD, f"kernel panic: init ended ({how})")
            return

    def _hangs(self, power_came: bool) -> str:
        """Why the board hangs instead of starting, or an empty string. All have to be asked."""
        answers = [ask(power_came) for ask in self.defects.at_start]
        return next(filter(None, answers), "")

    async def _boot_once(self) -> int:
        """One boot, from the firmware until PID 1 has ended. Returns its status, as `wait` does."""
        reading, writing = os.pipe()
        try:
            with (self._folder / "console").open("ab") as console:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=writing,
                    stderr=console,
                    env=os.environ | self._environment(),
                    cwd="/",
                )
        finally:
            os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            lines = asyncio.StreamReader()
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(lines), pipe
            )
            try:
                async for line in lines:
                    self._hear(line.decode("utf-8", "replace").strip())
                return await self._process.wait()
            finally:
                transport.close()

    def _command(self) -> list[str]:
        return [
            *("setpriv", "--pdeathsig", "KILL", "--bounding-set", CAPABILITIES_TAKEN),
            *("nsenter", f"--net={procfs.NETNS_FOLDER / self.namespace}"),
            *("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL"),
            *("--propagation", "private", "sh", str(HERE / "boot.sh")),
        ]

    def _environment(self) -> dict[str, str]:
        return {
            "BOARD": str(self._folder),
            "LAB": str(HERE),
            "SERIAL": self.node.serial,
            "CARD": self.card.device if self.card and not self.defects.card_pulled else "",
            "BOOTS_CARD": "yes" if self.defects.boots_card else "",
            "DEPLOY_OS": str(self._options.deploy_os),
            "LAYER": str(self._options.layer),
            "FIRMWARE_SECONDS": f"{self._options.firmware_seconds:g}",
            "KERNEL_SECONDS": f"{self._options.kernel_seconds:g}",
        }

    def _hear(self, line: str) -> None:
        """An event that boot.sh reports."""
        word, _, rest = line.partition(" ")
        match word:
            case "booting":
                self._set(Booted.BOOTING, rest)
            case "up":
                self._set(Booted(rest))
            case "dead":
                self._set(Booted.DEAD, rest)
            case _:
                self._note(f"not understood: {line}")

    def _set(self, booted: Booted, reason: str = "") -> None:
        if (booted, reason) == (self.booted, self.reason):
            return
        self.booted, self.reason = booted, reason
        self._note(f"{booted.value}{': ' if reason else ''}{reason}")
        self._changed()

    def _note(self, text: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with (self._folder / "log").open("a", encoding="utf-8") as log:
            log.write(f"{now} {text}\n")
