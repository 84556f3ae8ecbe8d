"""A system to change: this machine's root under an overlay, in a mount namespace of its own."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

# The upper folder is on a tmpfs, so that nothing is left when the namespace is gone. The network is
# taken away as well: nothing that is run in there has any business outside.
_PREPARE = """
set -e
mount -t tmpfs upper "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" system "$1/root"
mount -t proc proc "$1/root/proc"
mount --bind /dev "$1/root/dev"
mount -t tmpfs run "$1/root/run"
mkdir "$1/root/run/sshd" "$1/root/run/lock"
echo ready
exec cat
"""


@dataclass
class System:
    """The changed system: commands run inside, files are reached through `root`."""

    holder: subprocess.Popen
    folder: Path

    @property
    def inside(self):
        """The start of a command line that runs the rest inside."""
        process = f"/proc/{self.holder.pid}"
        namespaces = [f"--mount={process}/ns/mnt", f"--net={process}/ns/net"]
        return ["nsenter", *namespaces, "chroot", str(self.folder / "root")]

    @property
    def root(self):
        """Its root folder, as seen from outside."""
        return Path(f"/proc/{self.holder.pid}/root{self.folder}/root")

    def run(self, *command, **options):
        """Runs a command inside, returns what it printed; it must succeed."""
        return subprocess.run(
            [*self.inside, *command], check=True, capture_output=True, text=True, **options
        ).stdout


def start(folder):
    """A fresh one; `stop` ends it."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _PREPARE, "sh"]
        + [str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "ready\n"
    return System(holder, folder)


def stop(system):
    """Ends the holder; with the last process inside, the namespace and all in it are gone."""
    system.holder.stdin.close()
    system.holder.wait()
    system.holder.stdout.close()
