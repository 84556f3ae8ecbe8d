"""Hazards 24 and 25: words that reached a shell, keys that were trusted, passwords in clear."""

import subprocess
from pathlib import Path

import pytest
import yaml
from bench import ENVIRONMENT, write_bench_site, write_environment
from boot.conftest import ModuleFailed
from boot.test_wait_for_system import HOSTNAME
from click.testing import CliRunner

from piseduce_runner import environments
from piseduce_runner.cli import main
from piseduce_runner.deployment import hash_password, read_ssh_keys
from piseduce_runner.errors import UserError
from piseduce_runner.families import load_families
from piseduce_runner.images.add import Wishes, check_wishes
from piseduce_runner.known_hosts import ssh_options
from piseduce_runner.people import check_name
from piseduce_runner.run_folder import write_inventory

# What a shell, a template or a line-based file would make something of.
WORDS = "$(touch pwned); `touch pwned` 'a' \"b\" && {{ lookup('pipe', 'touch pwned') }} \\ :"


def test_hazard_24_a_password_reaches_no_shell_and_no_template(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hashed = hash_password(WORDS)
    salt = hashed.split("$")[2]
    again = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", salt, "-stdin"],
        input=WORDS + "\n", capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert hashed == again
    assert set(hashed) <= set("$./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    assert not Path("pwned").exists()


@pytest.mark.parametrize("password", ["a\nroot:b", "a\0b", "a\rb"])
def test_hazard_24_a_password_is_one_line(password):
    with pytest.raises(UserError):
        hash_password(password)


def test_hazard_24_braces_in_a_users_words_are_data_for_ansible(tmp_path):
    (tmp_path / "run").mkdir()
    path = write_inventory(tmp_path / "run", {"node-1": {"deployment": {"ssh_keys": [WORDS]}}})
    tags = []

    class Loader(yaml.SafeLoader):
        pass

    def unsafe(loader, node):
        tags.append(node.value)
        return node.value

    Loader.add_constructor("!unsafe", unsafe)
    yaml.load(path.read_text(), Loader)  # noqa: S506
    assert tags == [WORDS]


def test_hazard_24_a_key_with_options_is_refused(tmp_path):
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k"], check=True
    )
    key = (tmp_path / "k.pub").read_text()
    (tmp_path / "k.pub").write_text(f'command="touch pwned" {key}')
    with pytest.raises(UserError, match="not a public SSH key"):
        read_ssh_keys([tmp_path / "k.pub"])


@pytest.mark.parametrize("name", ["../other", "$(reboot)", "a b", "a;b", "-rf", "{{ x }}", ""])
def test_hazard_24_names_are_looked_at_at_the_door(tmp_path, name):
    write_environment(tmp_path)
    with pytest.raises(UserError, match="unknown environment"):
        environments.find(tmp_path, name)
    with pytest.raises(UserError):
        check_wishes(name, Wishes(), load_families())
    with pytest.raises(UserError):
        check_wishes("fine", Wishes(login=name), load_families())
    with pytest.raises(UserError):
        check_name(name)


def test_hazard_24_a_path_is_quoted_on_the_node(module, sshd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / WORDS.replace("/", "")
    source.mkdir()
    (source / "config.txt").write_text("x")
    (tmp_path / "tftp").mkdir()
    module(
        "tftp_folder", root=str(tmp_path / "tftp"), serial="10000001", timeout=30,
        source_folder=str(source), source_node=sshd.reach(),
    )  # fmt: skip
    assert (tmp_path / "tftp" / "10000001" / "config.txt").read_text() == "x"
    assert not list(Path("/root").glob("pwned")) and not Path("pwned").exists()


# Secrets


def test_hazard_25_a_password_is_nowhere_in_clear_and_its_hash_is_not_shown(tmp_path):
    site = write_bench_site(tmp_path / "site")
    write_environment(site / "environments")

    def run(*words, **options):
        done = CliRunner().invoke(main, ["--site", str(site), "--json", *words], **options)
        assert done.exit_code == 0, done.output
        return done.output

    deploy = ["deploy", "node-1", "--env", ENVIRONMENT, "--password-stdin", "--detach"]
    shown = run(*deploy, input="very secret words\n")
    shown += run("status") + run("history", "node-1")
    database = site / "state" / "piseduce.db"
    assert b"$6$" in b"".join(path.read_bytes() for path in site.glob("state/piseduce.db*"))
    for path in site.rglob("*"):
        if path.is_file():
            assert b"very secret words" not in path.read_bytes(), path
    assert "very secret words" not in shown
    assert "$6$" not in shown
    assert database.stat().st_mode & 0o007 == 0


def test_hazard_25_without_a_password_nobody_gets_one_that_can_be_guessed(bench):
    one = bench()
    one.drive(one.begin("node-1"))
    (given,) = one.runner.runs[-1].batch.variables.values()
    assert given["deployment"]["password_hash"] == ""


def test_hazard_25_no_host_key_is_taken_unseen(bench_site, module, sshd, start_sshd):
    options = ssh_options(bench_site, "node-1")
    assert "StrictHostKeyChecking=yes" in options
    assert "GlobalKnownHostsFile=/dev/null" in options
    stranger = start_sshd()
    with pytest.raises(ModuleFailed, match="host key differs"):
        module("wait_for_system", node=sshd.reach(port=stranger.port), hostname=HOSTNAME, timeout=3)
