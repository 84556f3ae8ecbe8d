"""How an image gets to the cards: ours, `dd` over SSH, and `curl | zstd | dd`, side by side.

    python tests/scale/copy_comparison.py --nodes 2 --card-rate 20M --link-rate 100M

Run as root in the virtual environment. A lab of its own is brought up, its nodes are booted into
the deploy OS, and the sample image is written to all cards at once, by each way in turn. What is
shown: seconds, bytes on each node's cable, bytes written to each card, and the manager's CPU time
for each node (of the programs that serve and drive; the simulated nodes run on the same machine and
are not counted).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lab")]

from simulated_lab import CLI, SimulatedLab  # noqa: E402

from piseduce_runner import environments  # noqa: E402

MIB = 1024**2
SECTOR = 512
TICKS = os.sysconf("SC_CLK_TCK")
COPY_ONLY = """
deploy:
  description: Write the image, and nothing else
  phases:
    - phase: nfs
      states:
        - {state: env_copy, timeout: 3600}
        - {state: env_check, timeout: 3600}
"""


@dataclass
class Measured:
    """Of one way: seconds, and means for each node."""

    name: str
    seconds: float
    wire_bytes: int
    card_bytes: int
    manager_cpu: float
    remark: str = ""


class Bench:
    """The lab at hand, and what is read of it."""

    def __init__(self, lab: SimulatedLab, nodes: int) -> None:
        self.lab = lab
        self.nodes = range(1, nodes + 1)
        self.environment = environments.find(lab.site / "environments", "debian-12")

    def measure(self, name: str, way) -> Measured:
        """Run `way`, which returns the seconds it took itself, or None for the clock's."""
        wire, card, cpu = self._wire(), self._card(), self._nginx_cpu() + _children_cpu()
        began = time.monotonic()
        seconds = way() or time.monotonic() - began
        for index in self.nodes:
            subprocess.run(["blockdev", "--flushbufs", self.lab.loop_device(index)], check=True)
        count = len(self.nodes)
        return Measured(
            name,
            seconds,
            (self._wire() - wire) // count,
            (self._card() - card) // count,
            (self._nginx_cpu() + _children_cpu() - cpu) / count,
        )

    def ours(self) -> float:
        """`piseduce-run deploy` with a table of env_copy and env_check; gives the copy's time."""
        names = [f"node-{index}" for index in self.nodes]
        self._run("deploy", *names, "--env", "debian-12", "--replace")
        told = json.loads(self._run("--json", "history"))["transitions"]
        copies = [one for one in told if one["state"] == "env_copy"][-len(names) :]
        return max(one["seconds"] for one in copies)

    def dd_over_ssh(self) -> None:
        image = self.environment.folder / self.environment.image
        self._on_all("dd of=/dev/mmcblk0 bs=4M conv=fsync 2>/dev/null", f"zstd -dcq {image}")

    def curl_zstd_dd(self) -> None:
        url = f"{self._image_url()}/{self.environment.name}/{self.environment.image}"
        command = f"curl -sf {url} | zstd -dcq | dd of=/dev/mmcblk0 bs=4M conv=fsync 2>/dev/null"
        self._on_all(command, None)

    def _on_all(self, command: str, source: str | None) -> None:
        running = []
        for index in self.nodes:
            ssh = " ".join(self._ssh(index)) + f" '{command}'"
            line = f"{source} | {ssh}" if source else f"{ssh} </dev/null"
            running.append(subprocess.Popen(["sh", "-c", line]))
        if sum(process.wait() for process in running):
            raise SystemExit("a copy has failed")

    def _ssh(self, index: int) -> list[str]:
        return [
            *("ssh", "-F", "none", "-i", str(self.lab.site / "keys" / "manager_ed25519")),
            *("-o", f"UserKnownHostsFile={self.lab.site / 'known_hosts'}"),
            *("-o", "HostKeyAlias=nfspi", f"root@{self.lab.node(index).address}"),
        ]

    def _image_url(self) -> str:
        inventory = yaml.safe_load((self.lab.site / "inventory" / "hosts.yml").read_text())
        return inventory["all"]["vars"]["piseduce_image_url"]

    def boot(self) -> None:
        """All nodes into the deploy OS, once; then a table that copies only."""
        self._run("boot-test", *(f"node-{index}" for index in self.nodes))
        (self.lab.site / "processes.yml").write_text(COPY_ONLY)

    def _run(self, *words: str) -> str:
        command = [sys.executable, "-c", CLI, "--site", str(self.lab.site), *words]
        done = subprocess.run(
            command, env=self.lab.environment(), stdout=subprocess.PIPE, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}")
        return done.stdout

    def _wire(self) -> int:
        """Bytes that the manager has sent to the nodes."""
        links = (self.lab.folder.link(index) for index in self.nodes)
        return sum(
            int(Path(f"/sys/class/net/{link}/statistics/tx_bytes").read_text()) for link in links
        )

    def _card(self) -> int:
        """Bytes written to the cards (proc(5), diskstats: field 7 counts sectors)."""
        total = 0
        for index in self.nodes:
            device = Path(self.lab.loop_device(index)).name
            total += int(Path(f"/sys/block/{device}/stat").read_text().split()[6]) * SECTOR
        return total

    def _nginx_cpu(self) -> float:
        """CPU seconds of the lab's image server."""
        total = 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
                parent = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if b"nginx" in command:
                total += int(parent[11]) + int(parent[12])
        return total / TICKS


def _children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def show(bench: Bench, measured: list[Measured], args: argparse.Namespace) -> None:
    """A table in Markdown."""
    image = bench.environment
    print(
        f"\nimage {image.image_bytes / MIB:.0f} MiB, mapped {image.mapped_bytes / MIB:.0f} MiB,"
        f" compressed {image.compressed_bytes / MIB:.0f} MiB; {args.nodes} nodes at once,"
        f" card {args.card_rate or 'not limited'}, cable {args.link_rate or 'not limited'}\n"
    )
    print("| Way | Seconds | MiB on a cable | MiB written to a card | Manager's CPU s a node |")
    print("|---|---|---|---|---|")
    for one in measured:
        print(
            f"| {one.name} | {one.seconds:.1f} | {one.wire_bytes / MIB:.0f}"
            f" | {one.card_bytes / MIB:.0f} | {one.manager_cpu:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--card-rate", default="")
    parser.add_argument("--link-rate", default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="piseduce-bench-") as folder:
        lab = SimulatedLab(Path(folder), "bench")
        options = ["--nodes", str(args.nodes)]
        options += ["--card-rate", args.card_rate] if args.card_rate else []
        options += ["--link-rate", args.link_rate] if args.link_rate else []
        try:
            lab.up(*options)
            bench = Bench(lab, args.nodes)
            bench.boot()
            ways = {
                "`env_copy`, digests checked": bench.ours,
                "`dd` over SSH": bench.dd_over_ssh,
                "`curl \\| zstd \\| dd`": bench.curl_zstd_dd,
            }
            show(bench, [bench.measure(name, way) for name, way in ways.items()], args)
        finally:
            lab.down(check=False)


if __name__ == "__main__":
    main()
