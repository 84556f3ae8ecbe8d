"""The boot modules and roles take what their documentation says."""

import re
import runpy
from pathlib import Path

import ansible.module_utils
import pytest
import yaml

ROOT = Path(__file__).parents[2]
MODULE_UTILS = str(ROOT / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

MODULES = [
    *(
        "network_boot",
        "node_reboot",
        "picore_access",
        "system_reboot",
        "system_upgrade",
        "tftp_folder",
    ),
    *("user_access", "wait_for_system"),
]
ROLES = [
    *("boot_conf", "boot_files", "boot_update", "ssh_test", "system_update", "user_conf"),
    *("network_boot", "user_conf_picore"),
    *("destroying", "update_boot_files"),
    *("manager_dnsmasq", "manager_nginx", "manager_tftp"),
]


class Taken(Exception):
    pass


def specification(module, monkeypatch):
    def take(**arguments):
        raise Taken(arguments["argument_spec"])

    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule", take)
    with pytest.raises(Taken) as taken:
        runpy.run_path(str(ROOT / "library" / f"{module}.py"), run_name="__main__")
    return taken.value.args[0]


def assert_same(options, spec):
    assert set(options) == set(spec)
    for name, option in options.items():
        for key in ("type", "default", "choices", "elements"):
            assert spec[name].get(key) == option.get(key), (name, key)
        assert spec[name].get("required", False) == option.get("required", False), name
        assert_same(option.get("suboptions", {}), spec[name].get("options", {}))


@pytest.mark.parametrize("module", MODULES)
def test_every_option_is_documented_as_it_is(module, monkeypatch):
    text = (ROOT / "library" / f"{module}.py").read_text()
    documentation = re.search(r'DOCUMENTATION = r"""(.*?)"""', text, re.DOTALL)[1]
    options = yaml.safe_load(documentation).get("options", {})
    assert_same(options, specification(module, monkeypatch))


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_a_default_a_specification_and_a_place_in_the_readme(role):
    folder = ROOT / "roles" / role
    defaults = yaml.safe_load((folder / "defaults/main.yml").read_text())
    specs = yaml.safe_load((folder / "meta/argument_specs.yml").read_text())
    assert set(defaults) == set(specs["argument_specs"]["main"]["options"])
    readme = (folder / "README.md").read_text()
    for name in defaults:
        assert f"`{name}`" in readme or f"`{name.removeprefix(role)}`" in readme, name
