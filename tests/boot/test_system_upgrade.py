"""An upgrade is done when nothing is left to upgrade, asks nothing, and always ends."""

import fcntl
import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import ModuleFailed, finish, start_module

DEADLINE = 120  # seconds, for runs that end by themselves


class Repository:
    """A package repository in the folder /repo of a system."""

    def __init__(self, system):
        self._system = system
        self._folder = system.root / "repo"
        self._folder.mkdir()
        self._index = []
        for name in ("sources.list", "sources.list.d"):
            system.run("rm", "-rf", f"/etc/apt/{name}")
        (system.root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/repo ./\n")
        system.run("sh", "-c", "rm -rf /var/lib/apt/lists/* /etc/apt/sources.list.d")

    def add(self, name, version, *, files=None, preinst="", postinst="", fields=""):
        """Builds a package and offers it; returns its path in the system."""
        package = f"{name}_{version}"
        build = self._folder / package
        (build / "DEBIAN").mkdir(parents=True)
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
            f"Maintainer: Nobody <nobody@example.org>\nDescription: a test\n{fields}"
        )
        (build / "DEBIAN/control").write_text(control)
        (build / "DEBIAN/conffiles").write_text(
            "".join(f"{path}\n" for path in files or {} if path.startswith("/etc/"))
        )
        for script, text in (("preinst", preinst), ("postinst", postinst)):
            if text:
                (build / "DEBIAN" / script).write_text(f"#!/bin/sh\n{text}\n")
                (build / "DEBIAN" / script).chmod(0o755)
        for path, content in (files or {}).items():
            target = build / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        self._system.run("dpkg-deb", "--build", f"/repo/{package}", f"/repo/{package}.deb")
        content = (self._folder / f"{package}.deb").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self._index.append(
            f"{control}Filename: ./{package}.deb\nSize: {len(content)}\nSHA256: {digest}\n"
        )
        (self._folder / "Packages").write_text("\n".join(self._index))
        return f"/repo/{package}.deb"


@pytest.fixture
def repository(system):
    return Repository(system)


@pytest.fixture
def upgrade(module, system):
    def run(**changes):
        return module("system_upgrade", inside=system.inside, **{"timeout": DEADLINE} | changes)

    return run


@pytest.fixture
def outdated(repository, system):
    """A system with version 1 of `demo`, of which there is a version 2."""
    files = {"/etc/demo.conf": "one\n", "/boot/demo.bin": "one\n"}
    system.run("dpkg", "-i", repository.add("demo", "1", files=files))
    files = {"/etc/demo.conf": "two\n", "/boot/demo.bin": "two\n"}
    repository.add("demo", "2", files=files)
    return system


def version(system, name):
    return system.run("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", name)


def test_what_is_outdated_is_upgraded_and_then_left_alone(upgrade, outdated):
    result = upgrade()
    assert result["changed"]
    assert result["upgraded"] == [{"name": "demo", "before": "1", "after": "2"}]
    assert version(outdated, "demo") == "2 installed"
    assert (outdated.root / "boot/demo.bin").read_text() == "two\n"
    again = upgrade()
    assert not again["changed"]
    assert again["upgraded"] == []


def test_a_changed_configuration_file_is_kept_without_asking(upgrade, outdated):
    (outdated.root / "etc/demo.conf").write_text("mine\n")
    upgrade()
    assert version(outdated, "demo") == "2 installed"
    assert (outdated.root / "etc/demo.conf").read_text() == "mine\n"


def test_a_new_dependency_is_installed_too(upgrade, outdated, repository):
    repository.add("helper", "1")
    repository.add("demo", "3", fields="Depends: helper\n")
    steps = upgrade()["upgraded"]
    assert {"name": "helper", "before": "", "after": "1"} in steps
    assert {"name": "demo", "before": "1", "after": "3"} in steps


def test_a_package_on_hold_stays(upgrade, outdated):
    outdated.run("apt-mark", "hold", "demo")
    assert not upgrade()["changed"]
    assert version(outdated, "demo") == "1 installed"


def test_files_that_must_not_exist_are_removed(upgrade, outdated):
    bootcode = outdated.root / "boot/bootcode.bin"
    bootcode.write_text("x")
    arguments = {"remove": ["/boot/bootcode.bin", "/boot/firmware/bootcode.bin"]}
    assert upgrade(**arguments)["removed_files"] == ["/boot/bootcode.bin"]
    assert not bootcode.exists()
    assert not upgrade(**arguments)["changed"]


def test_check_mode_tells_the_change_and_makes_none(upgrade, outdated):
    outdated.run("apt-get", "update")
    bootcode = outdated.root / "boot/bootcode.bin"
    bootcode.write_text("x")
    result = upgrade(check=True, diff=True, remove=["/boot/bootcode.bin"])
    assert result["changed"]
    assert result["upgraded"] == [{"name": "demo", "before": "1", "after": "2"}]
    assert result["diff"] == {"before": "demo 1\n", "after": "demo 2\n"}
    assert version(outdated, "demo") == "1 installed"
    assert bootcode.exists()


def test_a_repository_that_is_gone_is_an_error(upgrade, outdated):
    (outdated.root / "repo/Packages").unlink()
    with pytest.raises(ModuleFailed, match=r"apt-get update failed: .*repo"):
        upgrade()
    assert version(outdated, "demo") == "1 installed"


def test_a_package_that_cannot_be_configured_is_named(upgrade, outdated, repository):
    repository.add("demo", "3", postinst="echo no way >&2; exit 3")
    with pytest.raises(ModuleFailed, match=r"apt-get dist-upgrade failed: .*demo"):
        upgrade()


def test_an_interrupted_upgrade_is_finished(upgrade, outdated, repository):
    half = repository.add("demo", "3", postinst="test -e /allowed")
    subprocess.run([*outdated.inside, "dpkg", "-i", half], capture_output=True)
    assert version(outdated, "demo") == "3 half-configured"
    (outdated.root / "allowed").touch()
    upgrade()
    assert version(outdated, "demo") == "3 installed"


WAITS = "touch /waiting; while ! test -e /allowed; do sleep 0.05; done"


def test_an_upgrade_that_was_killed_while_it_unpacked_is_finished(upgrade, outdated, repository):
    package = repository.add("demo", "3", preinst=WAITS)
    dpkg = subprocess.Popen([*outdated.inside, "dpkg", "-i", package], start_new_session=True)
    while not (outdated.root / "waiting").exists():
        assert dpkg.poll() is None
    os.killpg(dpkg.pid, signal.SIGKILL)
    dpkg.wait()
    assert "installed" not in version(outdated, "demo").replace("half-installed", "")
    (outdated.root / "allowed").touch()
    upgrade()
    assert version(outdated, "demo") == "3 installed"


def test_an_upgrade_whose_manager_died_ends_by_itself_and_the_next_attempt_waits_for_it(
    outdated, repository
):
    repository.add("demo", "3", postinst=WAITS)
    first = start_module("system_upgrade", {"timeout": DEADLINE}, inside=outdated.inside)
    while not (outdated.root / "waiting").exists():
        assert first.poll() is None
    first.kill()
    first.communicate()
    second = start_module("system_upgrade", {"timeout": DEADLINE}, inside=outdated.inside)
    (outdated.root / "allowed").touch()
    finish(second)
    assert version(outdated, "demo") == "3 installed"


def test_a_service_that_keeps_its_output_open_does_not_hold_the_upgrade(
    upgrade, outdated, repository
):
    repository.add("demo", "3", postinst="sleep 1000 & echo $! > /service")
    try:
        assert upgrade()["changed"]
    finally:
        subprocess.run(["kill", (outdated.root / "service").read_text().strip()])


def test_what_takes_too_long_is_ended_with_all_its_processes(upgrade, outdated, repository):
    repository.add("demo", "3", postinst="echo $$ > /pid; sleep 1000")
    with pytest.raises(ModuleFailed, match="longer than 8 s, at: apt-get dist-upgrade"):
        upgrade(timeout=8)
    pid = (outdated.root / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()


@pytest.fixture(
    params=["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock"]
)
def locked(request, outdated):
    """A system of which somebody else uses the package database; it writes down each attempt."""
    for name in ("apt-get", "dpkg"):
        wrapper = outdated.root / "usr/local/bin" / name
        wrapper.write_text(f'#!/bin/sh\necho {name} >> /attempts\nexec /usr/bin/{name} "$@"\n')
        wrapper.chmod(0o755)
    outdated.run("apt-get", "update")
    (outdated.root / "attempts").write_text("")
    with (outdated.root / request.param).open("r+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield outdated, lock


def test_another_user_of_the_package_database_is_waited_for(locked):
    system, lock = locked
    running = start_module("system_upgrade", {"timeout": DEADLINE}, inside=system.inside)
    while len((system.root / "attempts").read_text().split()) < 3:  # it meets the lock for sure
        assert running.poll() is None
    fcntl.lockf(lock, fcntl.LOCK_UN)
    assert finish(running)["changed"]
    assert version(system, "demo") == "2 installed"


def test_a_lock_that_is_never_released_is_an_error_that_says_so(locked, upgrade):
    system, _lock = locked
    with pytest.raises(ModuleFailed, match="waiting for the lock of another process"):
        upgrade(timeout=6)
    assert version(system, "demo") == "1 installed"
