"""The manager's roles: real dnsmasq and nginx serve a node in a network of their own."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .conftest import PROJECT, finish, start_module

HOSTS = """
all:
  vars:
    piseduce_manager_address: 10.66.0.1
    piseduce_tftp_root: {folder}/tftp
    piseduce_image_url: http://10.66.0.1:8000/environments
    manager_dir: {folder}/manager
    manager_interface: cluster
    manager_network: 10.66.0.0/24
    manager_dnsmasq_install: false
    manager_nginx_install: false
    manager_nginx_folders:
      - {{path: /apt/, folder: {folder}/apt}}
  children:
    nodes:
      hosts:
        pi-1: {{ansible_host: 10.66.0.101, node_mac: "dc:a6:32:00:00:01"}}
        pi-2: {{ansible_host: 10.66.0.102, node_mac: "dc:a6:32:00:00:02"}}
    switches: {{}}
"""

# The manager's side, and in a second namespace behind a cable the node's.
MANAGER = """
ip link set lo up
ip link add cluster type veth peer name cable
ip address add 10.66.0.1/24 dev cluster
ip link set cluster up
echo ready
exec cat
"""
NODE = """
ip link set lo up
echo ready
read moved
ip link set cable name eth0
ip link set eth0 address dc:a6:32:00:00:01 up
echo ready
exec cat
"""
# What busybox's udhcpc calls: it prints what it was given.
LEASE = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev eth0
echo "$ip $siaddr $router $dns $hostname"
"""


class Namespace:
    """A network namespace that lives until `close`."""

    def __init__(self, script):
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-ec", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._holder.pid
        self.wait()

    def wait(self):
        assert self._holder.stdout.readline() == "ready\n"

    def tell(self, line):
        self._holder.stdin.write(line + "\n")
        self._holder.stdin.flush()

    def command(self, *words):
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *map(str, words)]

    def run(self, *words, **options):
        command = self.command(*words)
        return subprocess.run(command, capture_output=True, text=True, **options)

    def close(self):
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()


class Manager:
    def __init__(self, folder):
        self.folder = folder
        self.daemons = []
        self.here, self.node = Namespace(MANAGER), Namespace(NODE)
        self.here.run("ip", "link", "set", "cable", "netns", self.node.pid, check=True)
        self.node.tell("moved")
        self.node.wait()
        for name in ("inventory", "environments/debian", "apt"):
            (folder / name).mkdir(parents=True)
        (folder / "inventory/hosts.yml").write_text(HOSTS.format(folder=folder))

    def play(self, *options):
        return self.here.run(
            *(Path(sys.executable).with_name("ansible-playbook"), "-i"),
            *(self.folder / "inventory/hosts.yml", *options),
            PROJECT / "playbooks/manager.yml",
            env=os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
            cwd=PROJECT,
        )

    def start(self):
        """Starts both daemons as the roles' README says, and waits until they answer."""
        manager = self.folder / "manager"
        for command in (
            ("dnsmasq", "-C", manager / "dnsmasq.conf", "--keep-in-foreground"),
            ("nginx", "-c", manager / "nginx.conf", "-g", "daemon off;"),
        ):
            daemon = subprocess.Popen(self.here.command(*command), stdin=subprocess.DEVNULL)
            self.daemons.append(daemon)
        while "TFTP root" not in self._log("dnsmasq.log") or self._is_deaf():
            assert [daemon.poll() for daemon in self.daemons] == [None, None]

    def _log(self, name):
        path = self.folder / "manager/log" / name
        return path.read_text() if path.exists() else ""

    def _is_deaf(self):
        return self.here.run("curl", "--silent", "http://10.66.0.1:8000/").returncode != 0

    def lease(self, *options):
        """A node asks for an address, as its firmware does; what it got, or an empty string."""
        script = self.folder / "lease"
        script.write_text(LEASE)
        script.chmod(0o755)
        command = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "1"]
        command += ["-s", script, "-V", "PXEClient:Arch:00000:UNDI:002001", *options]
        return self.node.run(*command).stdout.strip()

    def fetch(self, url):
        """What a node gets from an address; None if it gets nothing."""
        command = ["curl", "--silent", "--fail", "--path-as-is", "--max-time", "10", url]
        ended = self.node.run(*command)
        return ended.stdout if ended.returncode == 0 else None

    def close(self):
        for daemon in self.daemons:
            daemon.terminate()
            daemon.wait()
        self.node.close()
        self.here.close()


@pytest.fixture(scope="module")
def manager():
    """A manager set up by the roles, both daemons running."""
    # The daemons give up root: what they serve must be reachable by others.
    folder = Path(tempfile.mkdtemp(prefix="manager-"))
    folder.chmod(0o755)
    running = Manager(folder)
    try:
        ended = running.play()
        assert ended.returncode == 0, ended.stdout + ended.stderr
        running.start()
        running.lease()
        yield running
    finally:
        running.close()
        shutil.rmtree(folder)


def test_the_roles_change_nothing_the_second_time(manager):
    again = manager.play()
    assert "changed=0" in again.stdout, again.stdout


def test_a_known_node_gets_its_address_name_and_server(manager):
    assert manager.lease() == "10.66.0.101 10.66.0.1 10.66.0.1 10.66.0.1 pi-1"


def test_a_raspberry_pi_finds_the_text_that_it_looks_for(manager):
    # Options 93, 94 and 97 make a client a PXE client (RFC 4578); a Pi sends them.
    manager.lease("-O", "43", "-x", "93:0000", "-x", "94:010201", "-x", "97:00" + "44" * 16)
    vendor = [line for line in manager._log("dnsmasq.log").splitlines() if "vendor-encap" in line]
    assert vendor


def test_an_unknown_machine_gets_no_address(manager):
    known, unknown = "dc:a6:32:00:00:01", "dc:a6:32:00:00:99"
    try:
        manager.node.run("ip", "link", "set", "eth0", "address", unknown, check=True)
        assert manager.lease() == ""
    finally:
        manager.node.run("ip", "link", "set", "eth0", "address", known, check=True)
    assert "no address available" in manager._log("dnsmasq.log")


def test_names_of_the_cluster_are_known_and_others_refused(manager):
    def lookup(name):
        return manager.node.run("busybox", "nslookup", name, "10.66.0.1").stdout

    assert "Address: 10.66.0.1\n" in lookup("pimaster")
    assert "Address: 10.66.0.102\n" in lookup("pi-2")
    assert "REFUSED" in lookup("example.org")


def test_images_and_named_folders_are_served_and_nothing_else(manager):
    (manager.folder / "environments/debian/image.img.zst").write_text("image")
    (manager.folder / "apt/Release").write_text("release")
    server = "http://10.66.0.1:8000"
    assert manager.fetch(f"{server}/environments/debian/image.img.zst") == "image"
    assert manager.fetch(f"{server}/apt/Release") == "release"
    for path in ("/", "/environments/debian/", "/environments/../inventory/hosts.yml", "/manager/"):
        assert manager.fetch(server + path) is None


def test_tftp_serves_the_node_folder_through_every_swap(manager):
    for content in ("first", "second", "third"):
        source = manager.folder / "source"
        (source / "overlays").mkdir(parents=True, exist_ok=True)
        (source / "config.txt").write_text(content)
        (source / "overlays/disable-wifi.dtbo").write_text(content * 5000)
        arguments = {
            "root": str(manager.folder / "tftp"),
            "serial": "0000aa01",
            "source_folder": str(source),
            "timeout": 30,
        }
        assert finish(start_module("tftp_folder", arguments))["changed"]
        server = "tftp://10.66.0.1/0000aa01"
        assert manager.fetch(f"{server}/config.txt") == content
        assert manager.fetch(f"{server}/overlays/disable-wifi.dtbo") == content * 5000
    assert manager.fetch("tftp://10.66.0.1/0000aa02/config.txt") is None
    assert manager.fetch("tftp://10.66.0.1/../inventory/hosts.yml") is None


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("manager_interface=", 'manager_interface \\"\\" is not the name of an interface'),
        ("manager_network=10.67.0.0/24", "node pi-1: address 10.66.0.101 is not in 10.67.0.0/24"),
        ("manager_dnsmasq_lease_time=soon", "bad dhcp-range"),
        ("manager_nginx_user=nobody-here", "getpwnam"),
        ("piseduce_image_url=http://10.66.0.9:8000/environments", "Cannot assign requested addr"),
    ],
)
def test_a_mistake_is_told_and_the_old_configuration_kept(manager, option, message):
    def configuration():
        folder = manager.folder / "manager"
        return [(folder / name).read_text() for name in ("dnsmasq.conf", "nginx.conf")]

    before = configuration()
    ended = manager.play("-e", option)
    assert ended.returncode != 0
    assert message in ended.stdout + ended.stderr
    assert configuration() == before
