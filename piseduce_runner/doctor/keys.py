"""The SSH keys of a site."""

import os
import subprocess
from pathlib import Path

from piseduce_runner.doctor.findings import Finding, not_checked, ok, problem
from piseduce_runner.errors import UserError
from piseduce_runner.site import read_public_key

_SECONDS = 10


def check_manager_key(key: Path) -> list[Finding]:
    """The manager's private key is there, for us alone, and belongs to its public part."""
    name, subject = "manager-key", str(key)
    make = f"make one: ssh-keygen -t ed25519 -N '' -f {key}; the deploy OS has to trust its .pub"
    if not key.is_file():
        return [problem(name, subject, "there is no such file", make)]
    if not os.access(key, os.R_OK):
        return [problem(name, subject, "it cannot be read", "run piseduce-run as its owner")]
    mode = key.stat().st_mode & 0o777
    if mode & 0o077:
        said = f"its mode is {mode:04o}: others can read it, so SSH refuses it"
        return [
            problem(f"{name}-mode", subject, said, f"chmod 600 {key}"),
            not_checked(name, subject, "SSH does not take it before its mode is mended"),
        ]
    return [ok(f"{name}-mode", subject, f"its mode is {mode:04o}"), _check_pair(name, key)]


def _check_pair(name: str, key: Path) -> Finding:
    public = key.with_suffix(".pub")
    derive = f"ssh-keygen -y -f {key} > {public}"
    derived = _ssh_keygen("-y", "-P", "", "-f", str(key))
    if derived.returncode != 0:
        return problem(
            name,
            str(key),
            f"ssh-keygen cannot use it: {_last_line(derived.stderr)}",
            f"it must be a private key without a passphrase: take it away (ssh-keygen -p -f {key})"
            ", or make a new pair",
        )
    try:
        expected = read_public_key(public)
    except UserError as error:
        return problem(name, str(key), str(error), derive)
    # Type and key; the comment behind them may differ.
    if derived.stdout.split()[:2] != expected.split()[:2]:
        return problem(
            name,
            str(key),
            f"{public.name} is not its public part: nodes would be told to trust another key",
            f"if the private key is the right one: {derive}",
        )
    return ok(name, str(key), f"it can be used, and {public.name} is its public part")


def check_nfs_host_key(file: Path) -> list[Finding]:
    """The public host key of the deploy OS is one that ssh can read."""
    name, subject = "nfs-host-key", str(file)
    remedy = (
        "copy /etc/ssh/ssh_host_ed25519_key.pub of the deploy OS (in its NFS root) here:"
        " it is how the manager knows that it talks to the deploy OS"
    )
    try:
        line = read_public_key(file)
    except UserError as error:
        return [problem(name, subject, str(error), remedy)]
    shown = _ssh_keygen("-l", "-f", "-", given=line + "\n")
    if shown.returncode != 0:
        return [problem(name, subject, "ssh-keygen does not take it for a public key", remedy)]
    return [ok(name, subject, f"it is a public key: {shown.stdout.strip()}")]


def _ssh_keygen(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh-keygen", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it gave no reason"
