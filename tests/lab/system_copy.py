"""Runs commands in a throw-away copy of a system's tree: chroot over an overlay, own mounts."""

import subprocess
from pathlib import Path

_ENTER = r"""
copy=$1 tree=$2 script=$3 shared=$4
mount -t tmpfs copy "$copy"
mkdir "$copy/upper" "$copy/work" "$copy/root"
mount -t overlay copy "$copy/root" \
    -o "lowerdir=$tree,upperdir=$copy/upper,workdir=$copy/work"
mount -t proc proc "$copy/root/proc"
mount --rbind /dev "$copy/root/dev"
mount -t tmpfs run "$copy/root/run"
mkdir "$copy/root/shared"
mount --bind "$shared" "$copy/root/shared"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    chroot "$copy/root" /bin/bash -euo pipefail -c "$script"
"""


def run_in_copy(tree: Path, script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a bash script as root in a copy of `tree`. It sees the folder tmp_path/shared as /shared.

    Nothing of it stays: mounts and processes that hold them end with the namespace.
    """
    copy, shared = tmp_path / "copy", tmp_path / "shared"
    copy.mkdir(exist_ok=True)
    shared.mkdir(exist_ok=True)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
    return subprocess.run(
        [*command, "sh", "-euc", _ENTER, "enter", copy, tree, script, shared],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
