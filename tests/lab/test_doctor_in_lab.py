"""`doctor` on a lab: nothing to mend on a healthy one, and the right finding for each thing broken.

One lab for all; the last test ends its services.
"""

import json
import os
import shutil
import signal
import time

import pytest
import yaml


@pytest.fixture(scope="module")
def lab(make_lab):
    return make_lab("--nodes", "1")


@pytest.fixture
def spoilt_site(lab, tmp_path):
    """A copy of the lab's site after `change(variables of all, variables of the switch)`."""

    def make(change):
        site = tmp_path / "site"
        for name in ("inventory", "keys"):
            shutil.copytree(lab.site / name, site / name)
        (site / "environments").symlink_to(lab.site / "environments")
        hosts = site / "inventory" / "hosts.yml"
        inventory = yaml.safe_load(hosts.read_text())
        group = inventory["all"]
        change(group["vars"], group["children"]["switches"]["hosts"]["switch-1"])
        hosts.write_text(yaml.safe_dump(inventory))
        return site

    return make


def look_over(lab, site=None):
    """What `doctor` finds: {id: finding} of its problems, and all levels by id."""
    done = lab.run("--site", str(site or lab.site), "--json", "doctor", check=False)
    findings = json.loads(done.stdout)["findings"]
    problems = {one["id"]: one for one in findings if one["level"] == "problem"}
    assert done.returncode == (1 if problems else 0), done.stderr
    return problems, {one["id"]: one["level"] for one in findings}


def test_a_healthy_lab_has_no_problem_and_is_left_as_it_was(lab):
    def listing():
        return sorted(path for folder in (lab.site, lab.tftp) for path in folder.rglob("*"))

    before = listing()
    problems, levels = look_over(lab)
    assert problems == {}
    # Everything that needs the network or a service was really looked at.
    for name in ("switch-access", "switch-ports", "tftp-server", "image-server", "dhcp-nodes"):
        assert levels[name] == "ok"
    assert listing() == before


def test_a_lab_is_healthy_by_snmp_v3_too(lab, spoilt_site):
    access = json.loads(lab.folder.plan_file.read_text())["access"]

    def by_v3(_site, switch):
        del switch["switch_community"]
        names = ("user", "auth_protocol", "auth_password", "priv_protocol", "priv_password")
        switch |= {f"switch_{name}": access[name] for name in names} | {"switch_version": "v3"}

    problems, levels = look_over(lab, spoilt_site(by_v3))
    assert problems == {}
    assert levels["switch-access"] == "ok"


def test_a_wrong_community_is_told_from_a_dead_switch(lab, spoilt_site):
    wrong = spoilt_site(lambda _site, switch: switch.update(switch_community="guess"))
    problems, levels = look_over(lab, wrong)
    assert list(problems) == ["switch-access"]
    assert "does not answer to this community" in problems["switch-access"]["message"]
    assert levels["switch-answers"] == "ok"


def test_a_tftp_root_that_cannot_be_written_is_a_problem(lab, spoilt_site):
    # Even root cannot make files there.
    root = "/proc/sys"
    problems, _ = look_over(
        lab, spoilt_site(lambda site, _switch: site.update(piseduce_tftp_root=root))
    )
    assert list(problems) == ["tftp-root"]
    assert problems["tftp-root"]["subject"] == root


def test_services_that_have_ended_are_found(lab):
    for name in ("nginx", "dnsmasq"):
        os.kill(int((lab.folder.manager / f"{name}.pid").read_text()), signal.SIGTERM)
    limit = time.monotonic() + 60
    while any(lab.folder.status()["services"].values()):
        assert time.monotonic() < limit, lab.folder.status()["services"]
        time.sleep(0.05)
    problems, levels = look_over(lab)
    assert sorted(problems) == ["image-server", "tftp-server"]
    assert "Connection refused" in problems["image-server"]["message"]
    assert levels["switch-access"] == "ok"
