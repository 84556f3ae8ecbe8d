"""`piseduce-run env ...`, as admins and programs meet it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import disk_images
import pytest
import yaml
from click.testing import CliRunner
from sites import write_site

from piseduce_runner.cli import main
from piseduce_runner.environments import load
from piseduce_runner.images.add import Wishes, add_environment
from piseduce_runner.images.remove import remove_environment
from piseduce_runner.store import NewDeployment, Store


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disk_images.make(tmp_path_factory.mktemp("raw") / "Sample.img", disk_images.SMALL)


@pytest.fixture(scope="module")
def made(image: Path) -> Path:
    return add_environment(image, image.parent, Wishes("sample")).environment.folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_site(tmp_path / "site")


@pytest.fixture
def root(site: Path, made: Path) -> Path:
    """The folder of a site's environments, with one in it."""
    shutil.copytree(made, site / "environments" / "sample")
    return site / "environments"


@pytest.fixture
def run(site: Path):
    return lambda *words: CliRunner().invoke(main, ["--site", str(site), *map(str, words)])


def is_one_clear_line(result, *fragments: str) -> bool:
    assert result.exit_code == 2, result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    for fragment in fragments:
        assert fragment in result.output
    return True


def test_add_tells_what_it_found(run, site: Path, image: Path) -> None:
    result = run("env", "add", image)
    assert result.exit_code == 0, result.output
    for words in (
        "compressing 100 %",
        "1          FAT12",
        "2          ext4",
        "sample: Debian GNU/Linux 12 (bookworm), family raspbian, user pi",
        "image 16 MiB",
    ):
        assert words in result.output
    assert load(site / "environments" / "sample").name == "sample"


def test_add_gives_programs_one_document(run, image: Path) -> None:
    result = run("--json", "env", "add", image, "--name", "other", "--login", "student")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert answer["environment"]["name"] == "other"
    assert answer["environment"]["login"] == "student"
    assert answer["partitions"][1] == {
        "number": 2, "start_sector": 16384, "sectors": 16384, "file_system": "ext4", "use": "root",
    }  # fmt: skip
    assert answer["notes"] == []


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["add", "/nowhere.img"], "/nowhere.img: no such image file"),
        (["add", __file__, "--name", "x"], "not a disk image"),
        (["add", __file__, "--name", "X"], "'X' cannot be an environment's name"),
        (["show", "other"], "unknown environment 'other'; in"),
        (["remove", "other"], "unknown environment 'other'; in"),
        (["remove", ".."], "unknown environment '..'"),
        (["check", "sample", "other"], "unknown environment 'other'; in"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, root: Path, words, fragment: str) -> None:
    before = sorted(root.rglob("*"))
    assert is_one_clear_line(run("env", *words), fragment)
    assert sorted(root.rglob("*")) == before


def test_show_tells_all_and_who_uses_it(run, site: Path, root: Path) -> None:
    deploy(site, "node-2", "sample")
    answer = json.loads(run("--json", "env", "show", "sample").output)
    assert answer["environment"] == load(root / "sample").variables
    assert answer["used_by"] == ["node-2"]
    shown = run("env", "show", "sample").output
    assert "image_bytes" in shown
    assert "16777216 (16 MiB)" in shown
    assert "node-2" in shown


def deploy(site: Path, node: str, environment: str) -> None:
    store = Store.open(site / "state" / "piseduce.db")
    store.begin([NewDeployment(node, "deploy", environment, "alice", 0, "boot_conf")], "me", 0, 10)
    store.close()


def test_an_environment_that_nobody_uses_is_removed(run, site: Path, root: Path) -> None:
    deploy(site, "node-2", "another")
    result = run("env", "remove", "sample")
    assert (result.exit_code, result.output) == (0, "sample: removed\n")
    assert list(root.iterdir()) == []


def test_an_environment_that_is_deployed_is_not_removed(run, site: Path, root: Path) -> None:
    deploy(site, "node-2", "sample")
    assert is_one_clear_line(run("env", "remove", "sample"), "sample is in use by node-2")
    assert load(root / "sample")


def test_an_environment_that_somebody_has_planned_is_not_removed(
    run, site: Path, root: Path
) -> None:
    store = Store.open(site / "state" / "piseduce.db")
    (held,) = store.reserve(["node-1"], owner="alice", start=0, end=None, now=0)
    store.configure(held.id, "alice", {"environment": "sample"}, now=0)
    store.close()
    assert is_one_clear_line(run("env", "remove", "sample"), "sample is in use by node-1")
    assert load(root / "sample")


def test_who_comes_while_an_environment_is_removed_keeps_it(root: Path) -> None:
    answers = iter([[], ["node-1"]])
    with pytest.raises(Exception, match="sample is in use by node-1"):
        remove_environment(root, "sample", lambda: next(answers))
    assert load(root / "sample")
    assert [entry.name for entry in root.iterdir()] == ["sample"]


def test_a_damaged_environment_can_be_removed(run, root: Path) -> None:
    (root / "sample" / "environment.yml").write_text("no: sense\n")
    assert run("--json", "env", "remove", "sample").exit_code == 0
    assert list(root.iterdir()) == []


def test_sound_environments_pass_the_check(run, root: Path) -> None:
    result = run("env", "check")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "sample: sound")
    answer = json.loads(run("--json", "env", "check", "sample").output)
    assert answer == {"checked": [{"environment": "sample", "sound": True, "problem": ""}]}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def describe(folder: Path, **values: object) -> None:
    """Change environment.yml, with digests and sizes that fit the files as they are."""
    file = folder / "environment.yml"
    packed, block_map = folder / "image.img.zst", folder / "image.bmap"
    content = yaml.safe_load(file.read_text()) | {
        "compressed_bytes": packed.stat().st_size,
        "compressed_sha256": hashlib.sha256(packed.read_bytes()).hexdigest(),
        "block_map_sha256": hashlib.sha256(block_map.read_bytes()).hexdigest(),
    }
    file.write_text(yaml.safe_dump(content | values))


def flipped_image(folder: Path) -> None:
    flip(folder / "image.img.zst")


def flipped_map(folder: Path) -> None:
    flip(folder / "image.bmap")


def repack(folder: Path, change) -> None:
    packed = folder / "image.img.zst"
    content = bytearray(subprocess.run(["zstd", "-dc", packed], capture_output=True).stdout)
    change(content)
    done = subprocess.run(["zstd", "-q"], input=bytes(content), capture_output=True)
    packed.write_bytes(done.stdout)
    describe(folder)


def other_content(folder: Path) -> None:
    repack(folder, lambda content: content.__setitem__(4 << 20, content[4 << 20] ^ 1))


def shorter(folder: Path) -> None:
    repack(folder, lambda content: content.__delitem__(slice(-4096, None)))


def other_table(folder: Path) -> None:
    describe(folder, disk_id="0x00000001")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (flipped_image, "image.img.zst: its SHA-256 is not the one"),
        (flipped_map, "image.bmap: its SHA-256 is not the one"),
        (other_content, "image.img.zst: differs from its block map in bytes"),
        (shorter, "image.img.zst: "),
        (other_table, "image.img.zst: its partition table is not the one in environment.yml"),
    ],
)
def test_a_damaged_environment_fails_the_check(run, root: Path, damage, complaint: str) -> None:
    shutil.copytree(root / "sample", root / "another")
    describe(root / "another", name="another")
    damage(root / "sample")
    result = run("--json", "env", "check")
    assert result.exit_code == 1
    another, sample = json.loads(result.output)["checked"]
    assert complaint in sample["problem"]
    assert another == {"environment": "another", "sound": True, "problem": ""}


# Tests may be run by something that ignores signals, and a child takes that over.
COMMAND = """
import signal
from piseduce_runner.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(
    number: signal.Signals, site: Path, image: Path, tmp_path: Path
) -> None:
    tools, started = tmp_path / "tools", tmp_path / "started"
    tools.mkdir()
    lines = "#!/bin/sh", f"echo $$ >{started}.new", f"mv {started}.new {started}", "exec sleep 600"
    (tools / "zstd").write_text("\n".join(lines))
    (tools / "zstd").chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND] + ["--site", str(site), "env", "add", str(image)],
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 60
    while not started.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) != 0
    assert list((site / "environments").iterdir()) == []
    assert not Path("/proc", started.read_text().strip()).exists()
