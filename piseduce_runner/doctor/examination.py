"""Which checks a site goes through, and in what order they are shown."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from piseduce_runner.doctor import boot_server, content, keys, machine
from piseduce_runner.doctor.checks import Check, Checks
from piseduce_runner.doctor.findings import Finding, not_checked, problem
from piseduce_runner.doctor.image_server import check_image_server
from piseduce_runner.doctor.switches import check_switch
from piseduce_runner.errors import UserError
from piseduce_runner.runner import resolve_variables
from piseduce_runner.site import Site, SiteFolder, Switch, check_is_site
from piseduce_runner.site_reader import Survey, survey_site
from piseduce_runner.snmp import ACCESS_VARIABLES

# The slowest check is a switch that is dead; the inventory is read before it.
_LONGEST = 30.0


def examine(folder: Path) -> list[Finding]:
    """All findings on the site in `folder`, in an order that does not depend on their outcome.

    Raises `UserError` when it is no site at all.
    """
    check_is_site(folder)
    surveys: list[Survey] = []
    inventory, of_folder, of_site = Checks(), Checks(), Checks()
    inventory.start(_check("inventory", folder / "inventory", _read, folder, surveys))
    of_folder.start(*_of_folder(SiteFolder(folder)))
    findings = inventory.collect(_LONGEST)
    for survey in surveys:
        of_site.start(*_of_switches(survey))
        if survey.site is not None:
            of_site.start(*_of_site(survey.site, survey.variables))
    findings += of_folder.collect(_LONGEST) + of_site.collect(_LONGEST)
    if not surveys or surveys[0].site is None:
        why = "the inventory has to be mended first"
        findings.append(not_checked("site", "services, boot files, switches", why))
    return findings


def _read(folder: Path, surveys: list[Survey]) -> list[Finding]:
    try:
        survey = survey_site(folder)
    except UserError as error:
        message = str(error).removeprefix(f"{folder / 'inventory'}: ")
        return [problem("inventory", str(folder / "inventory"), message, "correct the inventory")]
    surveys.append(survey)
    return content.report_survey(folder, survey)


def _of_folder(site: SiteFolder) -> list[Check]:
    """Checks that need no inventory."""
    folder, state = site.folder, site.database.parent
    host_key = folder / "keys" / "nfs_host_key.pub"
    return [
        _check("inventory-mode", site.inventory, content.check_secrecy, folder),
        _check("manager-key", site.manager_key, keys.check_manager_key, site.manager_key),
        _check("nfs-host-key", host_key, keys.check_nfs_host_key, host_key),
        _check("process-table", "processes.yml", content.check_processes, folder),
        _check("environment", site.environments, content.check_environments, site.environments),
        _check("state-folder", state, machine.check_folder_writable, state),
        _check("store", site.database, content.check_store, site.database),
        _check("free-space", folder, machine.check_spaces, folder),
        _check("clock", "clock", machine.check_clock, site.inventory),
        _check("tool", "programs", machine.check_tools),
    ]


def _of_site(site: Site, variables: dict[str, dict[str, Any]]) -> list[Check]:
    """Checks of what the inventory names."""
    address, url = site.manager_address, site.image_url
    root, boot_files = site.tftp_root, site.nfs_boot_files
    shared = next((variables.get(name, {}) for name in site.nodes), {})
    dnsmasq = boot_server.dnsmasq_dir(shared)
    return [
        _check("manager-address", address, machine.check_address, address),
        _check("tftp-server", address, boot_server.check_tftp, root, address),
        _check("nfs-boot-files", boot_files, boot_server.check_nfs_boot_files, boot_files),
        _check("dhcp-nodes", dnsmasq, boot_server.check_dhcp, site.nodes.values(), dnsmasq),
        _check("image-server", url, check_image_server, url, site.environments),
        _check("policy", "piseduce_policy", content.check_policies, site),
    ]


def _check(name: str, subject: str | Path, look: Callable, *arguments: Any) -> Check:
    return Check(name, str(subject), partial(look, *arguments))


def _of_switches(survey: Survey) -> list[Check]:
    return [
        _check("switch-answers", name, look_at_switch, survey, switch)
        for name, switch in survey.switches.items()
    ]


def look_at_switch(survey: Survey, switch: Switch) -> list[Finding]:
    """All of one switch, asked with the variables that roles would get."""
    given = survey.variables[switch.name]
    access = {name: given[name] for name in ACCESS_VARIABLES & given.keys()}
    if hidden := sorted(name for name, value in access.items() if _is_for_ansible(value)):
        try:
            access |= resolve_variables(survey.inventory, switch.name, hidden)
        except UserError as error:
            remedy = "give Ansible what it needs, such as ANSIBLE_VAULT_PASSWORD_FILE"
            return [not_checked("switch-answers", switch.name, str(error), remedy)]
    nodes = [node for node in survey.nodes.values() if node.switch == switch.name]
    mac = machine.mac_of(survey.site.manager_address) if survey.site else None
    return check_switch(switch, nodes, access, mac)


def _is_for_ansible(value: Any) -> bool:
    """Whether only Ansible knows what it stands for: a vault or a template."""
    return isinstance(value, dict) or (isinstance(value, str) and "{{" in value)
