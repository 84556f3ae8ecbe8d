"""What `doctor` says of a site's folder and of the manager itself."""

import shutil
import subprocess

import pytest
from sites import write_site

from piseduce_runner.doctor import content, keys, machine
from piseduce_runner.doctor.findings import Level
from piseduce_runner.site_reader import survey_site
from piseduce_runner.store import NewDeployment, Store


def by_id(findings):
    return {one.id: one for one in findings}


def make_pair(key):
    key.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "comment", "-f", str(key)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


# Keys


def test_a_sound_pair_of_keys_is_fine_whatever_its_comment(tmp_path):
    key = tmp_path / "manager_ed25519"
    make_pair(key)
    public = key.with_suffix(".pub")
    public.write_text(public.read_text().replace("comment", "pimaster of our lab"))
    assert {one.level for one in keys.check_manager_key(key)} == {Level.OK}
    assert [one.level for one in keys.check_nfs_host_key(public)] == [Level.OK]


def other_pair(key):
    other = key.with_name("other")
    make_pair(other)
    shutil.copy(other.with_suffix(".pub"), key.with_suffix(".pub"))


def with_passphrase(key):
    command = ["ssh-keygen", "-q", "-p", "-N", "passphrase", "-f", str(key)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("spoil", "check", "says"),
    [
        (lambda key: key.unlink(), "manager-key", "no such file"),
        (lambda key: key.chmod(0o640), "manager-key-mode", "its mode is 0640"),
        (lambda key: key.write_text("not a key\n"), "manager-key", "ssh-keygen cannot use it"),
        (with_passphrase, "manager-key", "passphrase"),
        (other_pair, "manager-key", "not its public part"),
        (lambda key: key.with_suffix(".pub").unlink(), "manager-key", "cannot be read"),
    ],
)
def test_what_is_wrong_with_the_managers_key_is_said(tmp_path, spoil, check, says):
    key = tmp_path / "manager_ed25519"
    make_pair(key)
    spoil(key)
    found = by_id(keys.check_manager_key(key))[check]
    assert found.level is Level.PROBLEM
    assert says in found.message
    assert found.remedy


@pytest.mark.parametrize("text", [None, "two\nlines\n", "ssh-ed25519 AAAAnfs\n"])
def test_a_host_key_that_ssh_cannot_read_is_a_problem(tmp_path, text):
    file = tmp_path / "nfs_host_key.pub"
    if text is not None:
        file.write_text(text)
    assert [one.level for one in keys.check_nfs_host_key(file)] == [Level.PROBLEM]


# The machine


def test_an_address_of_another_machine_is_a_problem():
    assert machine.check_address("127.0.0.1")[0].level is Level.OK
    found = machine.check_address("192.0.2.1")[0]
    assert found.level is Level.PROBLEM
    assert "Cannot assign requested address" in found.message


def test_room_is_judged_at_the_nearest_folder_that_exists(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    later = tmp_path / "not" / "yet"
    assert machine.check_space(later, 1, 2, "x").level is Level.OK
    assert machine.check_space(later, 1, free * 2, "x").level is Level.WARNING
    assert machine.check_space(later, free * 2, free * 3, "x").level is Level.PROBLEM


def test_a_clock_behind_the_inventory_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "hosts.yml").touch()
    assert machine.check_clock(tmp_path)[0].level is Level.OK
    monkeypatch.setattr(machine.time, "time", lambda: 1_000_000.0)
    found = machine.check_clock(tmp_path)[0]
    assert found.level is Level.PROBLEM
    assert "1970" in found.message


def test_missing_programs_are_named_with_their_packages(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda tool, path: None)
    found = {one.subject: one for one in machine.check_tools()}
    assert found["ssh"].level is Level.PROBLEM
    assert "openssh-client" in found["ssh"].remedy
    assert found["zstd"].level is Level.WARNING


# What the folder holds


def test_an_inventory_with_passwords_that_others_can_read_is_a_warning(tmp_path):
    site = write_site(tmp_path)
    hosts = site / "inventory" / "hosts.yml"
    hosts.chmod(0o644)
    (found,) = content.check_secrecy(site)
    assert (found.level, found.subject) == (Level.WARNING, str(hosts))
    hosts.chmod(0o600)
    assert content.check_secrecy(site)[0].level is Level.OK


def test_a_process_table_is_checked_with_its_roles(tmp_path):
    site = write_site(tmp_path)
    assert [one.level for one in content.check_processes(site)] == [Level.OK]
    (site / "processes.yml").write_text(
        "deploy: {phases: [{phase: nfs, states: [{state: ours, timeout: 5}]}]}\n"
    )
    assert "unknown state 'ours'" in content.check_processes(site)[0].message
    tasks = site / "roles" / "ours" / "tasks" / "main.yml"
    tasks.parent.mkdir(parents=True)
    tasks.write_text("[]\n")
    found = by_id(content.check_processes(site))
    assert (found["role-arguments"].subject, found["role-arguments"].level) == (
        "ours",
        Level.WARNING,
    )


def test_a_policy_for_a_state_that_is_not_there_is_a_problem(tmp_path):
    def spoil(inventory):
        inventory["all"]["vars"]["piseduce_policy"] = {"env_cpy": {"retries": 1}}

    survey = survey_site(write_site(tmp_path, spoil))
    (found,) = content.check_policies(survey.site)
    assert found.level is Level.PROBLEM
    assert "no process has a state 'env_cpy'" in found.message


def test_damaged_environments_are_problems_and_none_is_a_warning(tmp_path):
    assert content.check_environments(tmp_path)[0].level is Level.WARNING
    (tmp_path / "broken").mkdir()
    (found,) = content.check_environments(tmp_path)
    assert found.level is Level.PROBLEM
    assert found.subject == str(tmp_path / "broken" / "environment.yml")


def test_a_store_is_looked_at_and_left_as_it_is(tmp_path):
    path = tmp_path / "piseduce.db"
    assert content.check_store(path)[0].level is Level.OK
    assert not path.exists()
    store = Store.open(path)
    new = NewDeployment("node-1", "deploy", "debian-12", "alice", 4, "env_copy")
    store.begin([new], "me", now=0, expires=10)
    assert content.check_store(path)[0].level is Level.OK
    store.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = bytes(len(damaged) - 4096)
    path.write_bytes(damaged)
    found = content.check_store(path)[0]
    assert found.level is Level.PROBLEM
    assert "is damaged" in found.message
    path.write_text("no database at all, but long enough to be looked at as one\n" * 9)
    assert "is damaged, or no store at all" in content.check_store(path)[0].message
