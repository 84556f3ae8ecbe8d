"""Cards on loop devices, a web server on loopback, and modules run as on a node."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from . import image as images

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
LAB_SYSTEMS = ROOT / "piseduce_runner/lab/recipe/common/usr"


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Folder of a web server with one environment, `raw` beside it is the image."""
    folder = tmp_path_factory.mktemp("published")
    raw = images.make_raw_image(folder)
    images.publish(raw, folder / "debian")
    return folder


@pytest.fixture(scope="session")
def environment(published):
    return json.loads((published / "debian" / "environment.json").read_text())


@pytest.fixture(scope="session")
def raw_image(published):
    return published / "image.img"


@pytest.fixture
def server(published, tmp_path):
    """Serves `published` and, below /own/, this test's own folder.

    With `stall_after` it sends so many bytes of an image and no more, until `resume` is set.
    """

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=str(published), **options)

        def translate_path(self, path):
            if path.startswith("/own/"):
                return str(tmp_path / path[len("/own/") :])
            return super().translate_path(path)

        def copyfile(self, source, outputfile):
            if self.server.stall_after is None or not self.path.endswith(".zst"):
                super().copyfile(source, outputfile)
                return
            outputfile.write(source.read(self.server.stall_after))
            outputfile.flush()
            self.server.stalled.set()
            self.server.resume.wait()

        def log_message(self, *_arguments):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    web.stall_after = None
    web.stalled, web.resume = threading.Event(), threading.Event()
    web.url = f"http://127.0.0.1:{web.server_port}"
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield web
    web.resume.set()
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.fixture
def namespace(tmp_path):
    """Prefix of commands that run in a mount namespace of this test's own."""
    helpers = tmp_path / "sbin"
    helpers.mkdir()
    # mount(8) looks for it there: FAT as in the lab's systems, where the kernel may have none.
    helper = helpers / "mount.vfat"
    text = (LAB_SYSTEMS / "sbin/mount.vfat").read_text()
    helper.write_text(text.replace("/usr/lib/", f"{LAB_SYSTEMS}/lib/"))
    helper.chmod(0o755)
    # What it would do to the real machine is none of a test's business.
    reboot = helpers / "reboot"
    reboot.write_text("#!/bin/sh\necho rebooted >> /run/rebooted\n")
    reboot.chmod(0o755)
    prepare = (
        "mount -t tmpfs none /run && mkdir /run/lock && mount -t tmpfs none /mnt && "
        'mount -t overlay -o "lowerdir=$1:/usr/sbin" none /usr/sbin && echo ready && exec cat'
    )
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", prepare, "sh", helpers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "ready\n"
    prefix = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--wd=/", "--"]
    yield prefix
    # A FUSE process would keep the namespace, and so the card, alive.
    images.call(*prefix, "umount", "--recursive", "/mnt")
    holder.stdin.close()
    holder.wait()


class CardFile:
    """A card: a sparse file on a loop device."""

    def __init__(self, path, size, prefix=()):
        self.path = path
        images.call(*prefix, "truncate", f"--size={size}", str(path))
        attach = ("losetup", "--find", "--show", str(path))
        self.device = images.call(*prefix, *attach).stdout.strip()

    def detach(self):
        """Remove the device; what is mounted of it must be gone by now."""
        # Without this the next one to get the device would find it read-only.
        images.call("blockdev", "--setrw", self.device)
        # Nor with partitions, which outlive the card. (`partx --delete` asks the card which there
        # are, and its table may be damaged.)
        name = Path(self.device).name
        for number in Path("/sys/block", name).glob("*/partition"):
            images.call("delpart", self.device, number.read_text().strip(), check=False)
        images.call("losetup", "--detach", self.device)

    def table(self):
        return json.loads(images.call("sfdisk", "--json", self.device).stdout)["partitiontable"]

    def read(self, offset, length):
        """Bytes on the card, past the page cache of the device."""
        images.call("blockdev", "--flushbufs", self.device)
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def overwrite(self, offset, data):
        images.call("blockdev", "--flushbufs", self.device)
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        images.call("blockdev", "--flushbufs", self.device)


@pytest.fixture
def make_card(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(size=96 * MIB, path=None, prefix=()):
            path = path or tmp_path / f"card-{len(list(tmp_path.iterdir()))}"
            card = CardFile(path, size, prefix)
            stack.callback(card.detach)
            return card

        yield make


@pytest.fixture
def card(make_card):
    return make_card()


class Run:
    """A module's run: `result` is what it told Ansible."""

    def __init__(self, process, output, complaint):
        self.status = process.returncode
        self.output, self.complaint = output, complaint
        try:
            self.result = json.loads(output)
        except ValueError:
            pytest.fail(f"the module said {output!r} and {complaint!r}")

    @property
    def failed(self):
        return bool(self.result.get("failed"))

    @property
    def hopeless(self):
        """Whether it said that neither a retry nor a power cycle can help."""
        return self.failed and self.result.get("hopeless", False)

    @property
    def message(self):
        return self.result.get("msg", "")


@pytest.fixture
def start_module(namespace):
    """Start a module; returns the process, whose standard output is the module's answer.

    `first` is Python that is run before the module, in its process.
    """
    started = []

    def start(name, *, check=False, first="", **options):
        options["_ansible_check_mode"] = check
        runner = Path(__file__).with_name("run_module.py")
        code = runner.read_text().replace("with patch", f"{first}\nwith patch")
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(
            [*namespace, *command, str(ROOT / "library" / f"{name}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        process.stdin.write(json.dumps(options))
        process.stdin.close()
        process.stdin = None
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def run_module(start_module):
    """Run a module to its end; returns a :class:`Run`."""

    def run(name, **options):
        process = start_module(name, **options)
        return Run(process, *process.communicate())

    return run


@pytest.fixture
def written(card, raw_image):
    """A card with the image on it, which card_write had no part in."""
    options = ("bs=4M", "conv=notrunc,sparse,fsync", "status=none")
    images.call("dd", f"if={raw_image}", f"of={card.path}", *options)
    images.call("blockdev", "--flushbufs", card.device)
    images.call("partx", "--update", card.device)
    return card


@pytest.fixture
def copy_options(server, environment):
    """Options of card_write for the published environment."""
    return {
        "url": f"{server.url}/debian",
        "block_map_sha256": environment["block_map_sha256"],
        "image_bytes": environment["image_bytes"],
        "timeout": 60,
    }


@pytest.fixture
def check_options(copy_options, environment):
    """Options of card_verify for the published environment."""
    return {**copy_options, "disk_id": environment["disk_id"]}


@pytest.fixture
def manager():
    """The manager's end of the progress reports: a UDP socket on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        yield listener


@pytest.fixture
def progress(manager):
    address, port = manager.getsockname()
    return {"address": address, "port": port, "token": "a-token", "node": "node-1"}
