"""The card's modules and roles say what they take, everywhere the same."""

import re
import runpy
from pathlib import Path

import ansible.module_utils
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULE_UTILS = str(ROOT / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)


def documented(name):
    text = (ROOT / "library" / f"{name}.py").read_text()
    return yaml.safe_load(re.search(r'DOCUMENTATION = r"""(.*?)"""', text, re.DOTALL)[1])


def role_variables(role):
    text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text()
    return yaml.safe_load(text)["argument_specs"]["main"]["options"]


MODULES = {
    "env_copy": "card_write",
    "env_check": "card_verify",
    "delete_partition": "card_partition",
    "create_partition": "card_partition",
    "mount_partition": "card_mount",
    "resize_partition": "card_resize",
    "wait_resizing": "card_resize",
    "system_conf": "system_conf",
    "erase_card": "card_erase",
}


class TestDocumentation:
    @pytest.mark.parametrize("role", MODULES)
    def test_role_gives_the_module_what_it_needs_and_only_what_it_has(self, role):
        tasks = yaml.safe_load((ROOT / "roles" / role / "tasks" / "main.yml").read_text())
        assert len(tasks) == 1
        given = set(tasks[0][MODULES[role]])
        options = documented(MODULES[role])["options"]
        assert given <= set(options)
        assert {name for name, option in options.items() if option.get("required")} <= given

    @pytest.mark.parametrize("role", [*MODULES, "capture_card", "system_sync"])
    def test_every_variable_has_a_default_a_specification_and_a_line_in_the_readme(self, role):
        folder = ROOT / "roles" / role
        defaults = yaml.safe_load((folder / "defaults" / "main.yml").read_text())
        assert set(defaults) == set(role_variables(role))
        readme = (folder / "README.md").read_text()
        assert all(f"`{name}`" in readme for name in defaults)

    @pytest.mark.parametrize("module", sorted({*MODULES.values(), "card_used", "card_fetch"}))
    def test_every_option_is_documented_as_it_is(self, module, monkeypatch):
        class Stop(Exception):
            pass

        taken = {}

        def take(**arguments):
            taken.update(arguments)
            raise Stop

        monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule", take)
        with pytest.raises(Stop):
            runpy.run_path(str(ROOT / "library" / f"{module}.py"), run_name="__main__")
        spec, options = taken["argument_spec"], documented(module)["options"]
        assert set(spec) == set(options)
        for name, option in options.items():
            for key in ("type", "default", "choices"):
                assert spec[name].get(key) == option.get(key), (name, key)
            assert spec[name].get("required", False) == option.get("required", False), name
