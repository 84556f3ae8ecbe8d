"""A switch on loopback, and the module run as Ansible runs it: in a process of its own."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible.module_utils

from piseduce_runner.lab.switch import Access, PoeSwitch

ROOT = Path(__file__).resolve().parents[2]
MODULE_UTILS = str(ROOT / "module_utils")

# What Ansible does for a module: ours are found under ansible.module_utils.
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

V2C = {"version": "v2c", "community": "writes"}
V3 = {
    "version": "v3",
    "user": "poe",
    "auth_password": "auth-password",
    "priv_password": "priv-password",
}
ACCESS = Access(
    read_community="reads",
    write_community="writes",
    **{key: value for key, value in V3.items() if key != "version"},
)
ADMIN_OID = "1.3.6.1.2.1.105.1.1.1.3.1"
STATUS_OID = "1.3.6.1.2.1.105.1.1.1.6.1"

RUN_MODULE = f"""
import json, runpy, sys
import ansible.module_utils
ansible.module_utils.__path__.append({MODULE_UTILS!r})
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    runpy.run_path({str(ROOT / "library" / "poe_port.py")!r}, run_name="__main__")
"""


class EventLoopThread:
    """An asyncio loop beside the tests, which wait for the module's process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=30)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a function in the loop's thread, where the switch lives."""

        async def called() -> Any:
            return function(*args)

        return self.run(called())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass
class Served:
    """A switch that answers at `address`:`udp_port`; `powered` logs what its hook was told."""

    switch: PoeSwitch
    address: str
    udp_port: int
    powered: list[tuple[int, bool]]
    thread: EventLoopThread

    @property
    def place(self) -> dict[str, Any]:
        """The module's arguments that lead here."""
        return {"address": self.address, "udp_port": self.udp_port, "port_count": 8}

    def sets(self) -> list[list[int]]:
        """The ports of each SET that reached the switch."""
        return [[n[-1] for n in request.names] for request in self.switch.recent
                if request.kind == "set"]  # fmt: skip

    def turn(self, port: int, on: bool) -> None:
        """Switches a port behind the manager's back."""
        self.thread.call(self.switch.set_port, port, on)


def poe_port(place: dict[str, Any], credentials: dict[str, Any], **arguments: Any) -> dict:
    """Runs the module; its result. A traceback instead of a result fails the test."""
    call = {"confirm_timeout": 10, "poll_interval": 0.05, "request_timeout": 1}
    call.update(place, **credentials)
    call.update(arguments)
    return run_module(call)


def run_module(arguments: dict[str, Any], prelude: str = "") -> dict:
    """The module's result; `prelude` is Python that runs before it in its process."""
    done = subprocess.run(
        [sys.executable, "-c", prelude + RUN_MODULE],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip().startswith("{"), f"no result: {done.stdout}{done.stderr}"
    result = json.loads(done.stdout)
    assert done.returncode == (1 if result.get("failed") else 0)
    return result


def port(number: int, admin: str, status: str) -> dict[str, Any]:
    return {"port": number, "admin": admin, "status": status}


def one_line(result: dict) -> str:
    """The message of a failed call, which is one line without a traceback."""
    assert result["failed"] is True
    assert "\n" not in result["msg"]
    assert "Traceback" not in json.dumps(result)
    return result["msg"]
