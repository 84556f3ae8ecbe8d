"""Brings a whole lab up, and takes it down."""

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.lab import build, checks, leftovers, network, settings
from piseduce_runner.lab.folder import (
    MARKER,
    LabFolder,
    cache_root,
    labs_root,
    machine_lock,
    write_atomically,
)
from piseduce_runner.lab.probe import NoAnswer
from piseduce_runner.lab.settings import Settings
from piseduce_runner.lab.site_files import write_site
from piseduce_runner.lab.supervisor import Plan
from piseduce_runner.lab.switch_probe import ask_switch
from piseduce_runner.runner import RunFailed, run_playbook

READY_WITHIN = 60.0  # seconds that the supervisor may take until everything answers

Report = Callable[[str], None]


class LabFailed(Exception):
    """The lab could not be brought up or taken down; one line."""


def up(wanted: Settings, network_given: str | None, report: Report) -> LabFolder:
    """Brings the lab up and returns when all its services answer.

    A lab that is up with these settings is left as it is. `wanted.network` is not looked at:
    `network_given` is what the user asked for, or None. UserError: a mistake, nothing was
    changed. LabFailed: it did not work, and everything was taken down again.
    """
    wanted = replace(wanted, network=network_given or settings.DEFAULT_NETWORK)
    settings.check(wanted)
    checks.check_machine(cache_root(), labs_root(), wanted.nodes)
    lab = LabFolder.named(wanted.name)
    labs_root().mkdir(parents=True, exist_ok=True)
    with _exclusive(lab):
        if lab.exists():
            _accept_running(lab, wanted, network_given)
            report(
                f"lab {lab.name} is already up: {wanted.nodes} nodes on {lab.settings().network}"
            )
            return lab
        network.choose(wanted.name, network_given)  # a mistake is better told before a long build
        artifacts = build.ensure_artifacts(cache_root(), report)
        started = time.monotonic()
        try:
            with _marked(lab):
                final = _set_up(lab, wanted, network_given, artifacts, report)
        except BaseException as error:
            remains = _tear_down(lab)
            if remains:
                raise LabFailed(f"{error}; and this is left: {', '.join(remains)}") from error
            if isinstance(error, (RuntimeError, OSError, RunFailed, NoAnswer, LabFailed)):
                raise LabFailed(f"{' '.join(str(error).split())}; nothing is left of it") from error
            raise
        took = time.monotonic() - started
        report(f"lab {lab.name} is up: {final.nodes} nodes on {final.network} ({took:.1f} s)")
        return lab


def down(name: str, report: Report) -> None:
    """Removes a lab and all that is left of it. LabFailed: something would not go."""
    settings.check_name(name)
    checks.check_root()
    lab = LabFolder.named(name)
    with _exclusive(lab):
        if not lab.exists() and not leftovers.find(lab):
            report(f"lab {name} is not up, and nothing is left of it")
            return
        remains = _tear_down(lab)
        if remains:
            raise LabFailed(f"lab {name} is not quite down; left: {', '.join(remains)}")
        report(f"lab {name} is down")


def _accept_running(lab: LabFolder, wanted: Settings, network_given: str | None) -> None:
    """UserError unless the lab that is there is alive and as it is wanted."""
    there = lab.settings()
    if not lab.is_alive() or not lab.status().get("ready"):
        raise UserError(
            f"lab {lab.name} was not taken down, but does not run any more; "
            f"run: piseduce-run lab down --name {lab.name}"
        )
    ended = [name for name, running in lab.status()["services"].items() if not running]
    if ended:
        raise UserError(
            f"{' and '.join(ended)} of lab {lab.name} ended (see {lab.supervisor_log}); "
            f"run: piseduce-run lab down --name {lab.name}"
        )
    if network_given is None:
        wanted = replace(wanted, network=there.network)
    before, now = asdict(there), asdict(wanted)
    differing = [f"{key} {before[key]} (not {now[key]})" for key in now if now[key] != before[key]]
    if differing:
        raise UserError(
            f"lab {lab.name} is already up with other settings: {', '.join(differing)}; "
            f"take it down first, or give another --name"
        )


def _set_up(
    lab: LabFolder,
    wanted: Settings,
    network_given: str | None,
    artifacts: build.Artifacts,
    report: Report,
) -> Settings:
    lab.path.mkdir(mode=0o755)
    with machine_lock():
        final = replace(wanted, network=network.choose(wanted.name, network_given))
        network.create_bridge(lab, final)
    write_atomically(lab.settings_file, final.to_json())
    network.create_boards(lab, final)
    access = write_site(lab, final, artifacts)
    plan = Plan(deploy_os=str(artifacts.deploy_os), access=access)
    write_atomically(lab.plan_file, json.dumps(asdict(plan), indent=2) + "\n", mode=0o600)
    report("configuring the manager (playbooks/manager.yml)")
    log = lab.manager / "log" / "manager.yml.log"
    run_playbook("manager.yml", lab.site / "inventory" / "hosts.yml", {}, log)
    report("starting the switch, the services and the boards")
    _start_supervisor(lab)
    asyncio.run(ask_switch(final, access))
    return final


def _start_supervisor(lab: LabFolder) -> None:
    """Starts the daemon and waits until it says that all is well. LabFailed: with its reason."""
    with lab.supervisor_log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "piseduce_runner.lab.supervisor", str(lab.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=os.environ | {"PYTHONPATH": _python_path(), "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    limit = time.monotonic() + READY_WITHIN
    while not lab.status().get("ready"):
        if process.poll() is not None:
            lines = lab.supervisor_log.read_text("utf-8", "replace").strip().splitlines()
            raise LabFailed(f"the supervisor ended: {lines[-1] if lines else 'it said nothing'}")
        if time.monotonic() > limit:
            raise LabFailed(f"the supervisor is not ready after {READY_WITHIN:g} s")
        time.sleep(0.05)


def _python_path() -> str:
    """PYTHONPATH with which another interpreter finds this package, installed or not."""
    package_root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))


@contextmanager
def _marked(lab: LabFolder) -> Iterator[None]:
    """Marks every process that is started as the lab's: `lab down` also finds what a killed
    `lab up` has left running."""
    os.environ[MARKER] = str(lab.path)
    try:
        yield
    finally:
        del os.environ[MARKER]


def _tear_down(lab: LabFolder) -> list[str]:
    """Removes everything, the folder last; returns what would not go."""
    remains = leftovers.remove(lab)
    if not remains and lab.exists():
        shutil.rmtree(lab.path)
    return remains


@contextmanager
def _exclusive(lab: LabFolder) -> Iterator[None]:
    """One `lab up` or `lab down` at a time for a lab. UserError: another one is at it."""
    path = Path(f"/run/piseduce-lab-{lab.tag}.lock")
    descriptor = _locked(path)
    if descriptor is None:
        raise UserError(f"another command is bringing lab {lab.name} up or down")
    try:
        yield
    finally:
        if not lab.exists():
            path.unlink()
        os.close(descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock `path`, or None if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between our two steps.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)
