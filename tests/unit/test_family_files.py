"""Families as files: ours, a site's own, and what is refused."""

from pathlib import Path

import pytest
import sites

from piseduce_runner.errors import UserError
from piseduce_runner.expressions import Facts
from piseduce_runner.families import find_family, load_families
from piseduce_runner.site import site_processes
from piseduce_runner.site_reader import load_site

OWN = """
description: our own system
login: student
recognised_by:
  - {os_release: [debian], root_has: [etc/student-release]}
system_conf: [hostname, root_key, openssh, {remove_files: {boot: [wifi.txt]}}]
roles: {user_conf: enrol}
policy:
  user_conf: {timeout: 90}
"""


def write_family(site: Path, text: str, name: str = "student_os") -> Path:
    file = site / "families" / f"{name}.yml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_ours_are_there_and_sound():
    ours = load_families()
    assert set(ours) == {"raspbian", "ubuntu", "picore"}
    assert {name: one.login for name, one in ours.items()} == {
        "raspbian": "pi",
        "ubuntu": "ubuntu",
        "picore": "tc",
    }
    assert all("bootcode.bin" in one.never_on_boot for one in ours.values())
    assert (ours["picore"].manager_login, ours["picore"].python) == ("tc", None)


def test_a_site_adds_one_with_a_file_and_a_role_and_changes_nothing_of_ours(tmp_path):
    """docs/families.md, step by step."""
    folder = sites.write_site(tmp_path / "site")
    write_family(folder, OWN)
    role = folder / "roles" / "enrol" / "tasks"
    role.mkdir(parents=True)
    (role / "main.yml").write_text("- ansible.builtin.command: true\n")

    assert set(load_families(folder)) == {"student_os", "raspbian", "ubuntu", "picore"}
    family = find_family(folder, "student_os")
    assert family.system_conf[3] == {"remove_files": {"boot": ["wifi.txt"]}}
    states = {
        one.name: one for one in site_processes(load_site(folder), family=family)["deploy"].states
    }
    assert (states["user_conf"].role, states["user_conf"].timeout) == ("enrol", 90)
    assert states["system_conf"].role == ""


def test_a_sites_own_takes_the_place_of_ours_of_the_same_name(tmp_path):
    write_family(tmp_path, OWN, "raspbian")
    assert load_families(tmp_path)["raspbian"].login == "student"
    assert find_family(tmp_path, "raspbian").login == "student"
    assert find_family(None, "raspbian").login == "pi"


def test_what_the_site_says_of_a_state_holds_over_the_family(tmp_path):
    def change(inventory):
        inventory["all"]["vars"]["piseduce_policy"] = {"ssh_test": {"timeout": 77}}

    plain = load_site(sites.write_site(tmp_path / "plain"))
    changed = load_site(sites.write_site(tmp_path / "changed", change))
    family = find_family(None, "ubuntu")
    timeouts = [one.timeout for one in site_processes(plain, family=family)["reboot"].states]
    assert timeouts[-1].seconds(Facts(phase="deployed")) == 900
    assert timeouts[-1].seconds(Facts(phase="nfs")) == 180
    assert site_processes(changed, family=family)["reboot"].states[-1].timeout == 77


def test_a_role_that_there_is_not_is_named(tmp_path):
    folder = sites.write_site(tmp_path / "site")
    write_family(folder, OWN)
    with pytest.raises(UserError, match=r"student_os\.yml: roles: there is no role 'enrol'"):
        site_processes(load_site(folder), family=find_family(folder, "student_os"))


def test_an_unknown_family_is_told_with_those_that_there_are(tmp_path):
    with pytest.raises(UserError, match="'../x'; there are: picore, raspbian, ubuntu"):
        find_family(tmp_path, "../x")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("login: [\n", "student_os.yml:2: "),
        ("just text", "expected a mapping"),
        (OWN + "colour: red\n", "unknown key 'colour'"),
        ("login: x\nsystem_conf: [hostname]", "key 'description' is missing"),
        ("description: x\nlogin: y\n", "it needs steps"),
        (OWN.replace("student\n", "Stu dent\n"), "login: 'Stu dent' is not of the form"),
        (OWN.replace("[hostname", "[hostnam"), "system_conf: .* no step 'hostnam'; there"),
        (OWN.replace("[hostname", "[kernel_arguments"), "kernel_arguments .* needs an argument"),
        (OWN.replace("[hostname", "[{hostname: x}"), "step hostname .* takes no argument"),
        (OWN.replace("root_has: [etc", "root_has: [/etc"), "recognised_by: .* not a plain path"),
        (OWN.replace("root_has", "roots_has"), "recognised_by: unknown key 'roots_has'"),
        (OWN + "boot_directory: boot\n", "boot_directory: 'boot' is not a plain absolute path"),
        (OWN + "mount_boot: mount /boot\n", "mount_boot and unmount_boot go together"),
        (OWN + "updates_with: yum\n", "updates_with: 'yum' is neither apt nor nothing"),
        (OWN.replace("{user_conf: enrol}", "[user_conf]"), "roles: expected a mapping"),
        (OWN.replace("timeout: 90", "timeout: soon"), "policy: user_conf: timeout is 'soon'"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_name_and_key(tmp_path, text, complaint):
    file = write_family(tmp_path, text)
    with pytest.raises(UserError, match=complaint) as refused:
        find_family(tmp_path, "student_os")
    assert str(refused.value).startswith(str(file))
    assert "\n" not in str(refused.value)
