"""What `doctor` says of what nodes boot from: on loopback, by small servers of ours."""

import contextlib
import http.server
import os
import socket
import struct
import threading
import time

import pytest
import yaml
from sites import NODE

from piseduce_runner.doctor import boot_server
from piseduce_runner.doctor.findings import Level
from piseduce_runner.doctor.image_server import check_image_server
from piseduce_runner.doctor.tftp import TftpError, TftpSilence, read_file
from piseduce_runner.site import Node


def by_id(findings):
    return {one.id: one for one in findings}


class TftpServer:
    """Serves the files of a folder by RFC 1350, each transfer from a port of its own."""

    def __init__(self, root):
        self.root = root
        self.lose = 0  # so many requests
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self):
        while True:
            request, client = self._socket.recvfrom(2048)
            if not request:
                return
            if self.lose:
                self.lose -= 1
                continue
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as transfer:
                transfer.settimeout(10)
                transfer.connect(client)
                self._answer(transfer, request[2:].split(b"\0")[0].decode())

    def _answer(self, transfer, name):
        try:
            content = (self.root / name).read_bytes()
        except OSError:
            transfer.send(struct.pack("!HH", 5, 1) + b"file not found\0")
            return
        for number in range(len(content) // 512 + 1):
            block = content[number * 512 : (number + 1) * 512]
            transfer.send(struct.pack("!HH", 3, number + 1) + block)
            if transfer.recv(4) != struct.pack("!HH", 4, number + 1):
                return


@pytest.fixture
def tftp(tmp_path):
    root = tmp_path / "tftp"
    root.mkdir()
    server = TftpServer(root)
    yield server
    server.close()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 5000])
def test_a_file_is_read_whole_by_tftp(tftp, size):
    content = bytes(number % 251 for number in range(size))
    (tftp.root / "file").write_bytes(content)
    assert read_file("127.0.0.1", "file", port=tftp.port, seconds=60) == content


def test_a_lost_request_is_sent_again_and_a_refusal_is_told_from_silence(tftp):
    (tftp.root / "file").write_bytes(b"content")
    tftp.lose = 1
    assert read_file("127.0.0.1", "file", port=tftp.port, seconds=60) == b"content"
    with pytest.raises(TftpError, match="file not found"):
        read_file("127.0.0.1", "other", port=tftp.port, seconds=60)
    tftp.lose = 1000
    with pytest.raises(TftpSilence):
        read_file("127.0.0.1", "file", port=tftp.port, seconds=0.3)
    tftp.lose = 0


def test_a_tftp_root_that_is_served_is_fine_and_left_as_it_was(tftp):
    found = by_id(boot_server.check_tftp(tftp.root, "127.0.0.1", tftp.port))
    assert [one.level for one in found.values()] == [Level.OK, Level.OK]
    assert list(tftp.root.iterdir()) == []


def test_another_root_than_the_servers_is_a_problem(tftp, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    found = by_id(boot_server.check_tftp(other, "127.0.0.1", tftp.port))
    assert found["tftp-root"].level is Level.OK
    assert found["tftp-server"].level is Level.PROBLEM
    assert "file not found" in found["tftp-server"].message
    assert list(other.iterdir()) == []


def test_without_a_root_the_server_is_looked_at_all_the_same(tftp, tmp_path):
    found = by_id(boot_server.check_tftp(tmp_path / "nowhere", "127.0.0.1", tftp.port))
    assert found["tftp-root"].level is Level.PROBLEM
    assert "No such file" in found["tftp-root"].message
    assert found["tftp-server"].level is Level.OK


def test_a_tftp_server_that_is_down_is_a_problem(tmp_path, monkeypatch):
    def silence(*_given, **_more):
        raise TftpSilence("no answer")

    monkeypatch.setattr(boot_server, "read_file", silence)
    found = by_id(boot_server.check_tftp(tmp_path, "127.0.0.1"))
    assert found["tftp-server"].level is Level.PROBLEM
    assert "no node can boot" in found["tftp-server"].message
    assert list(tmp_path.iterdir()) == []


# The deploy OS's boot files


@pytest.fixture
def boot_files(tmp_path):
    (tmp_path / "config.txt").write_text("arm_64bit=1\n")
    (tmp_path / "cmdline.txt").write_text("root=/dev/nfs nfsroot=192.0.2.1:/nfs ip=dhcp\n")
    (tmp_path / "kernel8.img").write_bytes(bytes(2 << 20))
    return tmp_path


def test_complete_boot_files_are_fine(boot_files):
    assert [one.level for one in boot_server.check_nfs_boot_files(boot_files)] == [Level.OK]


@pytest.mark.parametrize(
    ("name", "text", "level", "says"),
    [
        ("config.txt", None, Level.PROBLEM, "no config.txt"),
        ("cmdline.txt", None, Level.PROBLEM, "no cmdline.txt"),
        ("cmdline.txt", "ip=dhcp nfsroot=/nfs\n", Level.PROBLEM, "no root="),
        ("cmdline.txt", "root=/dev/mmcblk0p2 rw\n", Level.PROBLEM, "/dev/mmcblk0p2 is a card"),
        ("cmdline.txt", "root=PARTUUID=1-02\n", Level.PROBLEM, "is a card"),
        ("cmdline.txt", "root=/dev/nfs\nip=dhcp\n", Level.PROBLEM, "more than one line"),
        ("kernel8.img", None, Level.WARNING, "no kernel"),
    ],
)
def test_what_is_wrong_with_boot_files_is_said(boot_files, name, text, level, says):
    if text is None:
        (boot_files / name).unlink()
    else:
        (boot_files / name).write_text(text)
    (found,) = boot_server.check_nfs_boot_files(boot_files)
    assert found.level is level
    assert says in found.message


def test_boot_files_that_are_not_there_at_all(tmp_path):
    (found,) = boot_server.check_nfs_boot_files(tmp_path / "nowhere")
    assert found.level is Level.PROBLEM


# DHCP


ONE = Node("node-1", NODE["ansible_host"], NODE["node_mac"], "1" * 8, "", "switch-1", 1, "", None)


@pytest.mark.parametrize(
    ("line", "level", "says"),
    [
        ("dhcp-host=DC:A6:32:00:00:01,192.0.2.1,node-1", Level.OK, ""),
        ("dhcp-host=dc:a6:32:00:00:02,192.0.2.1,node-1", Level.PROBLEM, "does not know its MAC"),
        ("# dhcp-host=dc:a6:32:00:00:01,192.0.2.1", Level.PROBLEM, "does not know its MAC"),
        ("dhcp-host=dc:a6:32:00:00:01,192.0.2.7", Level.PROBLEM, "gives it 192.0.2.7"),
    ],
)
def test_the_dhcp_server_must_know_each_node(tmp_path, line, level, says):
    (tmp_path / "dnsmasq.conf").write_text(f"interface=eth1\n{line}\n")
    (found,) = boot_server.check_dhcp([ONE], tmp_path)
    assert found.level is level
    assert says in found.message


def test_a_dhcp_configuration_that_is_elsewhere_is_not_checked(tmp_path):
    (found,) = boot_server.check_dhcp([ONE], tmp_path)
    assert found.level is Level.NOT_CHECKED


@pytest.mark.parametrize(
    ("hours", "ids"), [(-1, ["dhcp-nodes"]), (1, ["dhcp-nodes", "dhcp-restart"])]
)
def test_a_configuration_that_dnsmasq_has_not_read_is_a_warning(tmp_path, hours, ids):
    file = tmp_path / "dnsmasq.conf"
    file.write_text("dhcp-host=dc:a6:32:00:00:01,192.0.2.1\n")
    (tmp_path / "dnsmasq.pid").write_text(f"{os.getpid()}\n")  # for a daemon that has just started
    changed = time.time() + hours * 3600
    os.utime(file, (changed, changed))
    assert [one.id for one in boot_server.check_dhcp([ONE], tmp_path)] == ids


# The image server


@contextlib.contextmanager
def serving(folder):
    """The URL of a static server of `folder`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(folder))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/environments"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_environment(folder):
    folder.mkdir(parents=True)
    (folder / "image.img.zst").write_bytes(b"image")
    (folder / "image.bmap").write_bytes(b"block map")
    values = {
        "name": folder.name, "family": "raspbian", "login": "pi", "boot_directory": "/boot",
        "image": "image.img.zst", "block_map": "image.bmap", "image_bytes": 1 << 20,
        "mapped_bytes": 4096, "compressed_bytes": 5, "compressed_sha256": "0" * 64,
        "block_map_sha256": "0" * 64, "disk_id": "0x5eed0001", "boot_partition": 1,
        "boot_start_sector": 8, "boot_sectors": 8, "root_partition": 2, "root_start_sector": 16,
        "root_sectors": 8,
    }  # fmt: skip
    (folder / "environment.yml").write_text(yaml.safe_dump(values))


def test_an_image_server_that_serves_the_sites_environments_is_fine(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    make_environment(tmp_path / "environments" / "debian-12")
    with serving(tmp_path) as url:
        (found,) = check_image_server(url, tmp_path / "environments")
    assert (found.level, found.subject) == (Level.OK, f"{url}/debian-12")


def test_an_image_server_of_another_folder_is_a_problem(tmp_path):
    make_environment(tmp_path / "site" / "environments" / "debian-12")
    make_environment(tmp_path / "served" / "environments" / "debian-12")
    (tmp_path / "served" / "environments" / "debian-12" / "image.bmap").write_bytes(b"short")
    with serving(tmp_path / "served") as url:
        (found,) = check_image_server(url, tmp_path / "site" / "environments")
        (missing,) = check_image_server(f"{url}/deeper", tmp_path / "site" / "environments")
    assert (found.level, missing.level) == (Level.PROBLEM, Level.PROBLEM)
    assert "it would give 5 bytes" in found.message
    assert "404 Not Found" in missing.message


def test_an_image_server_is_looked_at_without_any_environment(tmp_path):
    with serving(tmp_path) as url:
        assert check_image_server(url, tmp_path)[0].level is Level.NOT_CHECKED
    (found,) = check_image_server(url, tmp_path)
    assert found.level is Level.PROBLEM
    assert "Connection refused" in found.message
