"""What the site's folder holds: inventory, process table and roles, environments, the store."""

import stat
from pathlib import Path

from piseduce_runner.doctor.findings import Finding, ok, problem, warning
from piseduce_runner.environments import list_environments
from piseduce_runner.errors import UserError
from piseduce_runner.families import find_family
from piseduce_runner.policy import check_states
from piseduce_runner.site import Site, load_site_processes, role_folders, site_processes
from piseduce_runner.site_reader import Survey
from piseduce_runner.store import Store

_SECRETS = ("switch_community", "switch_auth_password", "switch_priv_password")


def report_survey(folder: Path, survey: Survey) -> list[Finding]:
    """The inventory's mistakes, each as a finding."""
    check, subject = "inventory", str(folder / "inventory")
    findings = [
        problem(check, subject, str(mistake).removeprefix(f"{subject}: "), "correct the inventory")
        for mistake in survey.mistakes
    ]
    if findings or survey.site is None:
        return findings
    nodes, switches = len(survey.site.nodes), len(survey.site.switches)
    return [ok(check, subject, f"it can be read; nodes: {nodes}, switches: {switches}")]


def check_secrecy(folder: Path) -> list[Finding]:
    """Files of the inventory with secrets in clear are for their owner alone."""
    check, open_files = "inventory-mode", []
    for file in sorted((folder / "inventory").rglob("*")):
        if file.is_file() and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            text = file.read_text("utf-8", "replace")
            if not text.startswith("$ANSIBLE_VAULT") and any(word in text for word in _SECRETS):
                open_files.append(file)
    return [
        warning(
            check,
            str(file),
            f"its mode is {file.stat().st_mode & 0o777:04o}: others can read the switches'"
            " passwords in it",
            f"chmod 600 {file}",
        )
        for file in open_files
    ] or [ok(check, str(folder / "inventory"), "its secrets are for its owner alone")]


def check_processes(folder: Path) -> list[Finding]:
    """The process table is sound, and the role of each state describes its arguments."""
    check = "process-table"
    try:
        processes = load_site_processes(folder)
    except UserError as error:
        return [problem(check, "processes.yml", str(error), "correct the table, or the role")]
    states = {state.name for process in processes.values() for state in process.states}
    findings = [
        warning(
            "role-arguments",
            name,
            "its role has no meta/argument_specs.yml: its arguments are not checked before it runs",
            "describe them (docs/roles.md)",
        )
        for name in sorted(states)
        if not _has_argument_specs(name, folder)
    ]
    return [*findings, ok(check, "processes.yml", f"it is sound: {', '.join(processes)}")]


def _has_argument_specs(role: str, site: Path) -> bool:
    folders = [folder / role for folder in role_folders(site) if (folder / role).is_dir()]
    return any((folders[0] / "meta").glob("argument_specs.y*ml"))


def check_policies(site: Site) -> list[Finding]:
    """What the site and its environments override is of states that there are."""
    try:
        processes = load_site_processes(site.folder)
    except UserError:
        return []  # the table's own finding
    environments, _ = list_environments(site.environments)
    findings = _check_families(site, {one.family for one in environments})
    for policy in (site.policy, *(one.policy for one in environments)):
        try:
            check_states(processes.values(), policy)
        except UserError as error:
            remedy = "correct the name, or take the entry away"
            findings.append(problem("policy", policy.source, str(error), remedy))
    return findings or [ok("policy", "policy", "it names states that there are")]


def _check_families(site: Site, used: set[str]) -> list[Finding]:
    """The site's families, and those that its environments are of, are sound."""
    findings = []
    own = {file.stem for file in (site.folder / "families").glob("*.yml")}
    for name in sorted(used | own):
        try:
            site_processes(site, family=find_family(site.folder, name))
        except UserError as error:
            findings.append(problem("family", name, str(error), "correct its file"))
    return findings


def check_environments(folder: Path) -> list[Finding]:
    """The environments are whole, as far as sizes tell; their digests are not computed."""
    check = "environment"
    good, damaged = list_environments(folder)
    findings = [
        problem(check, text.partition(": ")[0], text.partition(": ")[2], "make it again")
        for text in damaged
    ]
    if not good and not damaged:
        said = "there is no environment, so nothing can be deployed"
        findings.append(warning(check, str(folder), said, "piseduce-run env add FILE"))
    findings += [
        ok(check, one.name, "its description is sound, and its image has the right size")
        for one in good
    ]
    return findings


def check_store(database: Path) -> list[Finding]:
    """The store can be read and is sound. It is neither made nor brought to this version."""
    subject = str(database)
    if not database.exists():
        return [ok("store", subject, "there is none before the first deployment")]
    remedy = "keep a copy of the file; then put a backup in its place, or update piseduce-run"
    return [
        problem("store", subject, f"it {words}", remedy) for words in Store.check(database)
    ] or [ok("store", subject, "it can be read, and SQLite finds no damage in it")]
