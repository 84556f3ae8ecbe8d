"""What the lab builds for its nodes: the deploy OS, the sample environment, the APT repository."""

import fcntl
import hashlib
import os
import re
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest
from system_copy import run_in_copy

from piseduce_runner import environments
from piseduce_runner.environments import Environment
from piseduce_runner.errors import UserError
from piseduce_runner.lab import build
from piseduce_runner.lab.build import Artifacts, ensure_artifacts
from piseduce_runner.lab.folder import cache_root

COMMANDS = (
    "blkdiscard blockdev curl e2fsck findmnt fsck.vfat mcopy mkfs.ext4 mkfs.vfat mount.vfat mount "
    "parted partprobe partx ps python3 reboot resize2fs rsync sfdisk ssh-keygen sshd tar umount "
    "wipefs zstd"
)
WANTED = "etc/systemd/system/multi-user.target.wants"


def call(*command: object) -> str:
    words = [str(word) for word in command]
    environment = os.environ | {"MTOOLS_SKIP_CHECK": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def artifacts() -> Artifacts:
    return ensure_artifacts(cache_root(), print)


@pytest.fixture(scope="module")
def environment(artifacts: Artifacts) -> Environment:
    environment = environments.load(artifacts.environment)
    environments.verify_files(environment)
    return environment


@pytest.fixture(scope="module")
def image(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("image") / "image.img"
    call("zstd", "-q", "-d", "--sparse", environment.folder / environment.image, "-o", raw)
    return raw


@pytest.fixture(scope="module")
def boot(image: Path, environment: Environment) -> Path:
    return boot_files(image, environment)


@pytest.fixture(scope="module")
def root(image: Path, environment: Environment) -> Iterator[Path]:
    yield from mounted_root(image, environment)


def boot_files(image: Path, environment: Environment) -> Path:
    """The boot partition's files, copied out of the image."""
    target = image.with_suffix(".boot")
    target.mkdir()
    offset = environment.boot_start_sector * 512
    call("mcopy", "-s", "-n", "-i", f"{image}@@{offset}", "::/", target)
    return target


def mounted_root(image: Path, environment: Environment) -> Iterator[Path]:
    """The root partition, mounted read-only."""
    target = image.with_suffix(".root")
    target.mkdir()
    offset = environment.root_start_sector * 512
    call("mount", "-t", "ext4", "-o", f"ro,loop,offset={offset}", image, target)
    try:
        yield target
    finally:
        call("umount", target)


def check_file_systems(image: Path, environment: Environment) -> None:
    """Extract both partitions; their own checkers must find nothing to say."""
    parts = {
        "p1": (environment.boot_start_sector, environment.boot_sectors),
        "p2": (environment.root_start_sector, environment.root_sectors),
    }
    for name, (start, count) in parts.items():
        part = image.with_suffix(f".{name}")
        where = [f"skip={start * 512}", f"count={count * 512}", "iflag=skip_bytes,count_bytes"]
        call("dd", f"if={image}", f"of={part}", "bs=1M", "conv=sparse", "status=none", *where)
    call("fsck.vfat", "-n", image.with_suffix(".p1"))
    call("e2fsck", "-f", "-n", image.with_suffix(".p2"))


def digests(tree: Path) -> dict[str, str]:
    """Every path of a tree with its content's digest, link's target or folder's mode."""
    found = {}
    for folder, names, files in os.walk(tree):
        for path in (Path(folder, name) for name in [*names, *files]):
            if path.is_symlink():
                value = f"-> {path.readlink()}"
            elif path.is_file():
                value = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                value = f"{path.lstat().st_mode:o}"
            found[str(path.relative_to(tree))] = value
    return found


# The cache


def test_a_second_call_builds_nothing_and_says_nothing(artifacts: Artifacts) -> None:
    before = [place.stat() for place in vars(artifacts).values()]
    said: list[str] = []
    assert ensure_artifacts(cache_root(), said.append) == artifacts
    assert said == []
    assert [place.stat().st_ino for place in vars(artifacts).values()] == [s.st_ino for s in before]


def test_who_comes_while_another_builds_waits_and_gets_the_same(artifacts: Artifacts) -> None:
    said: Queue[str] = Queue()
    result: Queue[Artifacts] = Queue()
    with (cache_root() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiter = threading.Thread(
            target=lambda: result.put(ensure_artifacts(cache_root(), said.put))
        )
        waiter.start()
        assert "waiting for another process" in said.get(timeout=60)
        assert result.empty()
    assert result.get(timeout=60) == artifacts
    waiter.join()


@pytest.fixture
def without_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, with an mmdebstrap that cannot reach anything."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "mmdebstrap").write_text(
        "#!/bin/sh\necho 'I: running apt-get update...'\necho 'E: apt-get update failed' >&2\n"
        "echo 'I: cleaning up'\nexit 25\n"
    )
    (tools / "mmdebstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return tmp_path / "cache"


def test_a_failed_build_says_why_in_one_line_and_leaves_no_half_system(
    without_mirror: Path,
) -> None:
    killed = without_mirror / ".building-x7y/deploy-os-0123"
    killed.mkdir(parents=True)
    complaint = rf"apt-get update failed \(all of it: {without_mirror}/base\.log\)"
    with pytest.raises(UserError, match=complaint) as caught:
        ensure_artifacts(without_mirror, lambda line: None)
    assert "\n" not in str(caught.value)
    assert {path.name for path in without_mirror.iterdir()} == {".lock", "base.log"}


def test_a_killed_build_takes_its_tools_along(without_mirror: Path, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    mmdebstrap = tmp_path / "tools/mmdebstrap"
    mmdebstrap.write_text(f"#!/bin/sh\nexec 3> {alive}\necho started >&3\nsleep 1000\n")
    program = (
        "from pathlib import Path; from piseduce_runner.lab.build import ensure_artifacts; "
        f"ensure_artifacts(Path({str(without_mirror)!r}), print)"
    )
    builder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    with alive.open() as pipe:
        assert pipe.readline() == "started\n"
        builder.kill()
        builder.wait()
        # The pipe ends when the last process that could write to it has ended.
        assert select.select([pipe], [], [], 60)[0] == [pipe]
        assert pipe.read() == ""


def test_a_full_disk_is_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(UserError, match=r"MiB free, building the lab's systems needs \d+ MiB"):
        ensure_artifacts(tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_missing_tools_are_told_as_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = [tool for tool in build.TOOLS if tool not in ("mmdebstrap", "mcopy")]
    for tool in present:
        (tmp_path / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="missing packages: apt-get install mmdebstrap mtools$"):
        ensure_artifacts(tmp_path / "cache", print)


# The deploy OS


def test_the_deploy_os_has_what_roles_use(artifacts: Artifacts, tmp_path: Path) -> None:
    script = f"for name in {COMMANDS}; do command -v $name >/dev/null || echo $name; done"
    done = run_in_copy(artifacts.deploy_os, script, tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_deploy_os_lets_only_keys_in(artifacts: Artifacts, tmp_path: Path) -> None:
    key = "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key"
    script = f"mkdir -p /run/sshd; {key}; sshd -T"
    done = run_in_copy(artifacts.deploy_os, script, tmp_path)
    settings = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert settings["permitrootlogin"] == "without-password"
    assert settings["passwordauthentication"] == settings["kbdinteractiveauthentication"] == "no"
    assert settings["pubkeyauthentication"] == "yes"


def test_the_deploy_os_carries_its_name_and_no_key(artifacts: Artifacts) -> None:
    tree = artifacts.deploy_os
    assert (tree / "etc/hostname").read_text() == "nfspi\n"
    assert list(tree.glob("etc/ssh/ssh_host_*")) == []
    assert list(tree.glob("root/.ssh/*")) == []
    assert (tree / "etc/machine-id").read_text() == ""


@pytest.mark.parametrize("tree", ["deploy_os", "root"])
def test_a_system_keeps_nothing_of_the_machine_that_built_it(
    tree: str, artifacts: Artifacts, root: Path
) -> None:
    system = root if tree == "root" else artifacts.deploy_os
    assert list(system.glob("etc/apt/apt.conf.d/*mmdebstrap*")) == []
    assert list(system.glob("etc/dpkg/dpkg.cfg.d/*mmdebstrap*")) == []
    assert list(system.glob("var/cache/apt/archives/*.deb")) == []
    assert (system / "etc/resolv.conf").read_text() == ""
    assert not (system / "etc/resolv.conf").is_symlink()
    assert (system / "usr/sbin/mount.vfat").stat().st_mode & 0o7777 == 0o755


def test_the_network_boot_files_name_the_nfs_root(artifacts: Artifacts, boot: Path) -> None:
    folder = artifacts.nfs_boot_files
    words = (folder / "cmdline.txt").read_text().split()
    assert "root=/dev/nfs" in words
    assert "nfsroot=pimaster:/nfs/raspi,vers=4.1" in words
    assert (folder / "kernel8.img").stat().st_size == 8_000_000
    assert (folder / "kernel8.img").read_bytes() != (boot / "kernel8.img").read_bytes()


# The sample environment


def test_the_environment_says_how_it_is_deployed(environment: Environment) -> None:
    assert (environment.family, environment.login) == ("raspbian", "pi")
    assert environment.boot_directory == "/boot/firmware"
    assert environment.boot_sectors * 512 == 64 << 20


def test_both_file_systems_are_clean(image: Path, environment: Environment) -> None:
    check_file_systems(image, environment)


def test_the_mapped_blocks_alone_make_a_sound_system_on_a_used_card(
    image: Path, boot: Path, root: Path, environment: Environment, tmp_path: Path
) -> None:
    """Blocks outside the map keep what an earlier deployment left: here, all ones."""
    card = tmp_path / "card.img"
    with card.open("wb") as file:
        for _ in range(environment.image_bytes >> 20):
            file.write(b"\xff" * (1 << 20))
    block_map = (environment.folder / environment.block_map).read_text()
    with image.open("rb") as source, card.open("r+b") as target:
        for digest, first, last in re.findall(
            r'<Range chksum="([0-9a-f]{64})">\s*(\d+)(?:-(\d+))?', block_map
        ):
            start, end = int(first) * 4096, (int(last or first) + 1) * 4096
            content = os.pread(source.fileno(), end - start, start)
            assert hashlib.sha256(content).hexdigest() == digest
            os.pwrite(target.fileno(), content, start)
    check_file_systems(card, environment)
    assert digests(boot_files(card, environment)) == digests(boot)
    for card_root in mounted_root(card, environment):
        assert digests(card_root) == digests(root)


def test_the_command_line_names_the_disk_and_the_first_boot(
    boot: Path, root: Path, environment: Environment
) -> None:
    words = (boot / "cmdline.txt").read_text().split()
    assert f"root=PARTUUID={environment.disk_id.removeprefix('0x')}-02" in words
    (init,) = (word.removeprefix("init=") for word in words if word.startswith("init="))
    assert os.access(root / init.lstrip("/"), os.X_OK)


def test_the_file_system_table_names_the_disk(root: Path, environment: Environment) -> None:
    lines = [line.split() for line in (root / "etc/fstab").read_text().splitlines()]
    partuuid = f"PARTUUID={environment.disk_id.removeprefix('0x')}"
    assert [f"{partuuid}-01", "/boot/firmware", "vfat"] in [line[:3] for line in lines]
    assert [f"{partuuid}-02", "/", "ext4"] in [line[:3] for line in lines]
    assert list((root / "boot/firmware").iterdir()) == []


def test_the_boot_partition_looks_like_a_raspberrys(boot: Path) -> None:
    names = {str(path.relative_to(boot)) for path in boot.rglob("*") if path.is_file()}
    assert names >= {"bootcode.bin", "config.txt", "kernel8.img", "start4.elf", "fixup4.dat"}
    assert len([name for name in names if name.startswith("overlays/")]) >= 3
    assert (boot / "pi-boot-sample.txt").read_text() == "pi-boot-sample 1.0\n"


def test_the_image_waits_for_its_first_boot_as_raspberry_pi_os_does(root: Path) -> None:
    assert (root / "etc/hostname").read_text() == "raspberrypi\n"
    assert os.access(root / "etc/init.d/resize2fs_once", os.X_OK)
    assert (root / "etc/rc3.d/S01resize2fs_once").readlink() == Path("../init.d/resize2fs_once")
    units = {link.name: link.readlink() for link in (root / WANTED).iterdir()}
    assert "regenerate_ssh_host_keys.service" in units
    assert "ssh.service" not in units
    assert all((root / str(target).lstrip("/")).is_file() for target in units.values())
    assert list(root.glob("etc/ssh/ssh_host_*")) == []


def test_the_images_user_has_a_locked_password(root: Path) -> None:
    accounts = (root / "etc/shadow").read_text().splitlines()
    passwords = {line.split(":")[0]: line.split(":")[1] for line in accounts}
    assert passwords["pi"].startswith("!")
    assert passwords["root"] in ("*", "!")
    assert (root / "home/pi").stat().st_uid == (root / "home/pi").stat().st_gid == 1000


def test_the_image_knows_no_package_source_but_the_managers(root: Path) -> None:
    lists = [path for path in (root / "etc/apt").rglob("*") if path.suffix in (".list", ".sources")]
    assert [path.name for path in lists] == ["pimaster.list"]
    assert lists[0].read_text() == "deb [trusted=yes] http://pimaster:8000/apt ./\n"


def test_an_upgrade_from_the_repository_changes_the_boot_partition(
    artifacts: Artifacts, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(artifacts.apt_repository, tmp_path / "shared")
    done = run_in_copy(
        root,
        "echo 'deb [trusted=yes] file:/shared ./' > /etc/apt/sources.list.d/pimaster.list\n"
        "apt-get -q update\n"
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y dist-upgrade\n"
        "cat /boot/firmware/pi-boot-sample.txt\n"
        "ls /boot/firmware",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "1 upgraded, 0 newly installed, 0 to remove and 0 not upgraded" in done.stdout
    assert done.stdout.endswith("pi-boot-sample 1.1\nbootcode.bin\npi-boot-sample.txt\n")
