"""Which system answers: the expected one is accepted, any other is named."""

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from .conftest import ModuleFailed, finish, free_port, processes_with, start_module

HOSTNAME = Path("/etc/hostname").read_text().strip()
FAILING, SUCCEEDING = 3, 60  # seconds: no longer than needed to see a failure, and plenty
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.fixture
def wait(module):
    def run(node, **changes):
        arguments = {"node": node, "hostname": HOSTNAME, "timeout": FAILING} | changes
        return module("wait_for_system", **arguments)

    return run


def test_the_expected_system_is_found_and_its_boot_remembered(wait, sshd):
    result = wait(sshd.reach(), timeout=SUCCEEDING)
    assert not result["changed"]
    assert result["hostname"] == HOSTNAME
    assert result["boot_id"] == BOOT_ID
    assert result["remember"] == {"boot_id": BOOT_ID}


def test_another_boot_than_the_remembered_one_is_accepted(wait, sshd):
    other = "00000000-1111-2222-3333-444444444444"
    result = wait(sshd.reach(), previous_boot_id=other, timeout=SUCCEEDING)
    assert result["boot_id"] == BOOT_ID


def test_check_mode_asks_as_well(wait, sshd):
    assert wait(sshd.reach(), check=True, timeout=SUCCEEDING)["boot_id"] == BOOT_ID


def test_the_same_boot_is_not_accepted(wait, sshd):
    with pytest.raises(ModuleFailed, match=r"the same boot as before \(the node has not restarted"):
        wait(sshd.reach(), previous_boot_id=BOOT_ID)


def test_another_hostname_is_not_accepted(wait, sshd):
    with pytest.raises(ModuleFailed, match=f"last seen: hostname '{HOSTNAME}' instead of 'pi-7'"):
        wait(sshd.reach(), hostname="pi-7")


def test_another_host_key_is_not_accepted(wait, sshd, start_sshd):
    other = start_sshd()
    with pytest.raises(ModuleFailed, match=r"host key differs \(another system answers"):
        wait(sshd.reach(port=other.port))


def test_an_unknown_host_key_is_not_accepted(wait, sshd):
    with pytest.raises(ModuleFailed, match="knows no host key for it"):
        wait(sshd.reach(host_key_alias="never-seen"))


def test_a_refused_key_is_named(wait, sshd, start_sshd):
    stranger = start_sshd()
    node = sshd.reach(key_file=str(stranger.folder / "manager"))
    with pytest.raises(ModuleFailed, match=r"permission denied \(the manager's key is not accep"):
        wait(node)


def test_a_closed_port_is_named(wait, sshd):
    node = sshd.reach(port=free_port())
    with pytest.raises(ModuleFailed, match="connection refused"):
        wait(node)


@pytest.mark.parametrize("address", ["10.66.0.2", "10.67.0.2"], ids=["no neighbour", "no route"])
def test_a_host_that_is_not_there_is_named(wait, sshd, address):
    # In a network namespace of its own, where nobody is.
    lonely = (
        "ip link add here type veth peer name there && ip address add 10.66.0.1/24 dev here &&"
        ' ip link set here up && ip link set there up && exec "$@"'
    )
    with pytest.raises(ModuleFailed, match=r"no answer \(host unreachable"):
        wait(sshd.reach(address=address), inside=["unshare", "--net", "sh", "-c", lonely, "sh"])


def test_a_name_that_does_not_exist_fails_at_once(wait, sshd):
    with pytest.raises(ModuleFailed, match="no.such.host.invalid is not an address"):
        wait(sshd.reach(address="no.such.host.invalid"), timeout=1000)


def test_a_server_that_accepts_and_hangs_is_given_up(wait, sshd):
    with socket.create_server(("127.0.0.1", 0)) as server:
        node = sshd.reach(port=server.getsockname()[1])
        with pytest.raises(ModuleFailed, match="accepts connections and then says nothing"):
            wait(node)
    assert processes_with("-p", str(node["port"])) == []


def test_a_server_that_hangs_after_the_banner_is_given_up(wait, sshd):
    def greet(server):
        while True:
            try:
                connection, _address = server.accept()
            except OSError:
                return
            connections.append(connection)
            connection.sendall(b"SSH-2.0-Hanging\r\n")

    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=greet, args=(server,))
        thread.start()
        node = sshd.reach(port=server.getsockname()[1])
        with pytest.raises(ModuleFailed, match="accepts connections and then says nothing"):
            wait(node)
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in connections:
        connection.close()


def test_a_system_whose_login_hangs_is_given_up(wait, start_sshd):
    with pytest.raises(ModuleFailed, match="says nothing"):
        wait(start_sshd("ForceCommand sleep 1000").reach())


@pytest.mark.parametrize("answer", ["", "one-word", f"{HOSTNAME} no-boot-id", "a b c"])
def test_a_strange_answer_is_shown(wait, start_sshd, answer):
    node = start_sshd(f"ForceCommand echo {answer}").reach()
    with pytest.raises(ModuleFailed, match=f"said '{answer}'"):
        wait(node)


@pytest.mark.parametrize("stream", ["", " >&2"], ids=["output", "errors"])
def test_an_answer_without_an_end_is_not_waited_for(wait, start_sshd, stream, tmp_path):
    """The node says more than anybody wants to read, and then keeps the session open."""
    script = tmp_path / "endless"
    script.write_text(f"#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' y{stream}\nsleep 1000\n")
    script.chmod(0o755)
    node = start_sshd(f"ForceCommand {script}").reach()
    with pytest.raises(ModuleFailed, match="last seen: it said more than 65536 bytes"):
        wait(node)
    assert processes_with("-p", str(node["port"])) == []


def test_words_on_the_way_in_do_not_hide_the_answer(wait, start_sshd):
    """An answer below the bound is read whole, whatever comes with it on standard error."""
    command = "head -c 20000 /dev/zero >&2; cat /etc/hostname /proc/sys/kernel/random/boot_id"
    node = start_sshd(f"ForceCommand {command}").reach()
    assert wait(node, timeout=SUCCEEDING)["boot_id"] == BOOT_ID


def test_a_system_without_the_files_is_shown(wait, start_sshd):
    with pytest.raises(ModuleFailed, match="failed: no hostname here"):
        wait(start_sshd("ForceCommand echo no hostname here >&2; exit 1").reach())


def test_the_new_system_is_found_although_the_old_one_answered_first(start_sshd, tmp_path):
    """The node restarts while we wait: other key first, then nobody, then the new system."""
    new = start_sshd()
    old = start_sshd()
    node = new.reach(port=old.port)
    running = start_module(
        "wait_for_system", {"node": node, "hostname": HOSTNAME, "timeout": SUCCEEDING}
    )
    log = old.folder / "log"
    while "Connection closed" not in log.read_text():  # it was met, and not believed
        assert running.poll() is None
    old.stop()
    config = new.folder / "config"
    config.write_text(config.read_text().replace(f"Port {new.port}", f"Port {old.port}"))
    new.stop()
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-f", config],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert finish(running)["boot_id"] == BOOT_ID
    finally:
        server.terminate()
        server.wait()
