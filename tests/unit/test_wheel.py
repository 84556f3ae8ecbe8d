"""An installed wheel works from any folder: the Ansible content travels in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sites import write_site

ROOT = Path(__file__).parents[2]
CONTENT = [
    *("playbooks", "families", "roles", "library", "module_utils"),
    *("action_plugins", "filter_plugins"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's contents, as pip installs them."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    install = ["install", "--no-deps", "--target", target, wheel]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    return target


def run(installed, folder, *words):
    code = "from piseduce_runner.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )


def test_every_file_of_the_ansible_content_is_in_it(installed):
    content = installed / "piseduce_runner" / "ansible"
    for name in CONTENT:
        ours = {
            path.relative_to(ROOT)
            for path in (ROOT / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert ours
        assert all((content / path).read_bytes() == (ROOT / path).read_bytes() for path in ours)
    assert (content / "ansible.cfg").is_file()


def test_it_reads_its_own_table_and_roles_from_another_folder(installed, tmp_path):
    write_site(tmp_path / "site")
    done = run(installed, tmp_path, "--site", "site", "processes", "deploy")
    assert done.returncode == 0, done.stderr
    assert "env_copy" in done.stdout
    where = "from piseduce_runner import paths; print(paths.ansible_dir())"
    shown = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(shown.stdout.strip()).is_relative_to(installed)


def test_its_scripts_and_recipes_for_the_lab_are_in_it(installed):
    ours = {
        path.relative_to(ROOT): path
        for path in (ROOT / "piseduce_runner" / "lab").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name, path in ours.items():
        assert (installed / name).read_bytes() == path.read_bytes(), name
