"""The manager's daemons as children of the lab's supervisor."""

import asyncio
import os
from pathlib import Path


class Service:
    """A daemon that runs in the foreground. Its output goes to `log`."""

    def __init__(self, name: str, command: list[str], log: Path, end_signal: str = "KILL") -> None:
        self.name = name
        # It ends with the supervisor, however that ends (PR_SET_PDEATHSIG, prctl(2)).
        self._command = ["setpriv", "--pdeathsig", end_signal, *command]
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()

    @property
    def wanted(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._wanted.is_set()

    @property
    def pid(self) -> int:
        """Its process; only while it is running."""
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        self._wanted.set()

    async def started(self) -> None:
        """Waits until it has been started (again)."""
        await self._wanted.wait()

    async def ended(self) -> int:
        """Waits until the daemon has ended; returns its exit status."""
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after five seconds."""
        self._wanted.clear()
        if not self.running:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def last_words(self) -> str:
        """The last line of its output, for messages."""
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "no output"


def manager_services(manager: Path) -> list[Service]:
    """dnsmasq and nginx, with the configuration that playbooks/manager.yml wrote to `manager`."""
    log = manager / "log"
    dnsmasq = ["dnsmasq", f"--conf-file={manager / 'dnsmasq.conf'}", "--keep-in-foreground"]
    nginx = ["nginx", "-c", os.fspath(manager / "nginx.conf"), "-g", "daemon off;"]
    return [
        Service("dnsmasq", dnsmasq, log / "dnsmasq.out"),
        # SIGTERM, so that its master takes the workers along.
        Service("nginx", nginx, log / "nginx.out", end_signal="TERM"),
    ]
