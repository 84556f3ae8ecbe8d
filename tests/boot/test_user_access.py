"""Who may log in to a deployed system: exactly the keys and the password that were asked for."""

import base64
import json
import sys

import pytest

from .conftest import LAUNCHER, PROJECT, ModuleFailed

HASH = "$6$saltsalt$" + "Ab1./" * 17
OTHER_HASH = "$6$otherone$" + "Cd2./" * 17


def key(name, kind="ssh-ed25519"):
    blob = len(kind).to_bytes(4, "big") + kind.encode() + name.encode().ljust(36, b"\0")
    return f"{kind} {base64.b64encode(blob).decode()} {name}@example"


MANAGER, ANN, BOB = key("manager"), key("ann"), key("bob", "ecdsa-sha2-nistp256")


@pytest.fixture
def pi(system):
    """A system with the default user `pi`, as an image brings it along."""
    system.run("useradd", "--create-home", "--shell", "/bin/bash", "pi")
    system.run("ssh-keygen", "-A")
    return system


@pytest.fixture
def grant(module, pi):
    def run(**changes):
        arguments = {"login": "pi", "password_hash": HASH, "keys": [ANN, BOB]}
        return module("user_access", inside=pi.inside, manager_key=MANAGER, **arguments | changes)

    return run


def field(system, name):
    return system.run("getent", "shadow", name).split(":")[1]


def keys_of(system, home):
    path = system.root / home / ".ssh" / "authorized_keys"
    return path.read_text().splitlines() if path.exists() else None


def test_password_and_keys_are_set_and_then_left_alone(grant, pi):
    result = grant()
    assert result["changed"]
    assert field(pi, "pi") == HASH
    assert keys_of(pi, "home/pi") == [ANN, BOB]
    assert keys_of(pi, "root") == [MANAGER, ANN, BOB]
    assert result["key_files"] == ["/root/.ssh/authorized_keys", "/home/pi/.ssh/authorized_keys"]
    assert not grant()["changed"]


def test_owners_and_modes_are_what_sshd_insists_on(grant, pi):
    grant()
    user = int(pi.run("id", "-u", "pi"))
    for home, owner in (("home/pi", user), ("root", 0)):
        folder = pi.root / home / ".ssh"
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (owner, 0o700)
        file = folder / "authorized_keys"
        assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (owner, 0o600)


@pytest.mark.parametrize("what", ["mode", "owner", "folder's mode"])
def test_wrong_owners_and_modes_are_corrected(grant, pi, what):
    grant()
    file = "/home/pi/.ssh/authorized_keys"
    if what == "mode":
        pi.run("chmod", "666", file)
    elif what == "owner":
        pi.run("chown", "root:root", file)
    else:
        pi.run("chmod", "777", "/home/pi/.ssh")
    assert grant()["changed"]
    assert not grant()["changed"]


def test_keys_and_passwords_of_before_are_gone(grant, pi):
    grant(keys=[BOB])
    assert grant(keys=[ANN], password_hash=OTHER_HASH)["changed"]
    assert keys_of(pi, "home/pi") == [ANN]
    assert keys_of(pi, "root") == [MANAGER, ANN]
    assert field(pi, "pi") == OTHER_HASH


def test_without_keys_and_password_only_the_manager_gets_in(grant, pi):
    result = grant(keys=[], password_hash="")
    assert result["password"] == "none"
    assert keys_of(pi, "root") == [MANAGER]
    assert keys_of(pi, "home/pi") is None
    assert not grant(keys=[], password_hash="")["changed"]


# A "!" is no password either, but sshd without PAM would refuse the user's keys as well.
@pytest.mark.parametrize("image", [OTHER_HASH, "!", "!" + OTHER_HASH, ""])
def test_without_a_password_the_one_of_the_image_is_taken_away(grant, pi, image):
    pi.run("usermod", "-p", image, "pi")
    assert field(pi, "pi") == image
    result = grant(password_hash="", diff=True)
    assert result["changed"]
    assert "password of pi: none" in result["diff"]["after"]
    assert field(pi, "pi") == "*"
    assert not grant(password_hash="")["changed"]


@pytest.mark.parametrize("pam", ["yes", "no"])
def test_keys_work_without_a_password(grant, pi, pam):
    """A real login, to an sshd that has its standard input for a connection."""
    pi.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/own")
    grant(password_hash="", keys=[pi.run("cat", "/root/own.pub").strip()])
    options = ["-F", "none", "-i", "/root/own", "-o", "StrictHostKeyChecking=no"]
    server = f"ProxyCommand=/usr/sbin/sshd -i -o UsePAM={pam}"
    login = ["ssh", *options, "-o", "BatchMode=yes", "-o", server]
    for user in ("pi", "root"):
        assert pi.run(*login, f"{user}@system", "id", "-un") == f"{user}\n"


def test_a_password_that_was_given_before_is_taken_away(grant, pi):
    grant()
    assert grant(password_hash="")["changed"]
    assert field(pi, "pi") == "*"


def test_a_password_that_does_not_go_away_is_an_error(grant, pi):
    chpasswd = pi.root / "usr/sbin/chpasswd"
    chpasswd.unlink()
    chpasswd.write_text("#!/bin/sh\nexec cat > /dev/null\n")
    chpasswd.chmod(0o755)
    with pytest.raises(ModuleFailed, match="password of pi was set, and is not what it was set to"):
        grant(password_hash="")


def test_check_mode_takes_no_password_away(grant, pi):
    pi.run("usermod", "-p", OTHER_HASH, "pi")
    assert grant(password_hash="", check=True)["changed"]
    assert field(pi, "pi") == OTHER_HASH


def test_keys_that_the_image_brings_along_are_removed(grant, pi):
    folder = pi.root / "home/pi/.ssh"
    folder.mkdir()
    (folder / "authorized_keys").write_text(key("backdoor") + "\n")
    assert grant(keys=[])["changed"]
    assert keys_of(pi, "home/pi") == []


def test_a_key_given_twice_is_written_once(grant, pi):
    grant(keys=[ANN, ANN + " again", MANAGER])
    assert keys_of(pi, "home/pi") == [ANN, MANAGER]
    assert keys_of(pi, "root") == [MANAGER, ANN]


def test_root_loses_a_password_that_the_image_brings_along(grant, pi):
    pi.run("chpasswd", "-e", input=f"root:{OTHER_HASH}\n")
    assert grant()["changed"]
    assert field(pi, "root") == "*"
    assert not grant()["changed"]


@pytest.mark.parametrize("locked", ["*", "!", "!!"])
def test_a_locked_root_is_left_as_it_is(grant, pi, locked):
    grant()
    pi.run("usermod", "-p", locked, "root")
    assert not grant()["changed"]
    assert field(pi, "root") == locked


def test_check_mode_tells_the_change_and_makes_none(grant, pi):
    before = field(pi, "pi")
    result = grant(check=True, diff=True)
    assert result["changed"]
    assert ANN in result["diff"]["after"]
    assert "password of pi: set anew" in result["diff"]["after"]
    assert keys_of(pi, "root") != [MANAGER, ANN, BOB]
    assert keys_of(pi, "home/pi") is None
    assert field(pi, "pi") == before


def test_the_hash_is_in_no_result_and_no_argument_list(pi):
    """A stand-in for chpasswd writes down what everybody on the system can see of it."""
    chpasswd = pi.root / "usr/sbin/chpasswd"
    chpasswd.rename(chpasswd.with_suffix(".real"))
    chpasswd.write_text(
        "#!/bin/sh\ncat /proc/[0-9]*/cmdline | tr '\\0' ' ' > /seen\nenv >> /seen\n"
        'exec /usr/sbin/chpasswd.real "$@"\n'
    )
    chpasswd.chmod(0o755)
    arguments = {
        "login": "pi",
        "password_hash": HASH,
        "manager_key": MANAGER,
        "_ansible_diff": True,
    }
    files = (str(PROJECT / "module_utils"), str(PROJECT / "library" / "user_access.py"))
    python = sys.executable
    output = pi.run(python, "-c", LAUNCHER, *files, input=json.dumps(arguments))
    assert field(pi, "pi") == HASH
    assert "chpasswd" in (pi.root / "seen").read_text()
    assert "saltsalt" not in (pi.root / "seen").read_text()
    assert "saltsalt" not in output


@pytest.mark.parametrize(
    "bad",
    [
        "not a key",
        ANN + "\n" + BOB,
        'command="/bin/sh" ' + ANN,
        "ssh-rsa " + ANN.split()[1],
        "ssh-ed25519 AAAA%%%%",
        "",
    ],
)
def test_what_is_no_public_key_is_refused_and_nothing_changed(grant, pi, bad):
    before = keys_of(pi, "root")
    with pytest.raises(ModuleFailed, match="not an SSH public key"):
        grant(keys=[ANN, bad])
    assert keys_of(pi, "root") == before
    assert keys_of(pi, "home/pi") is None


@pytest.mark.parametrize("bad", ["secret", "$6$a:b$cccccccccc", HASH + "\nroot:" + HASH, "*"])
def test_what_is_no_hash_is_refused_and_not_repeated(grant, bad):
    with pytest.raises(ModuleFailed, match="password_hash is not a hash") as failure:
        grant(password_hash=bad)
    assert "secret" not in str(failure.value)


def test_a_user_that_the_image_lacks_is_named(grant):
    with pytest.raises(ModuleFailed, match="there is no user 'ubuntu' on this system"):
        grant(login="ubuntu")


def test_root_as_default_user_gets_keys_and_no_password(grant, pi):
    with pytest.raises(ModuleFailed, match="root, who gets no password"):
        grant(login="root")
    assert grant(login="root", password_hash="")["key_files"] == ["/root/.ssh/authorized_keys"]
    assert keys_of(pi, "root") == [MANAGER, ANN, BOB]


def test_a_link_in_place_of_the_folder_is_not_followed(grant, pi):
    pi.run("mkdir", "/elsewhere")
    pi.run("ln", "-s", "/elsewhere", "/home/pi/.ssh")
    with pytest.raises(ModuleFailed, match="/home/pi/.ssh is not a folder"):
        grant()
    assert list((pi.root / "elsewhere").iterdir()) == []


def test_a_link_in_place_of_the_file_is_replaced(grant, pi):
    pi.run("install", "-d", "-m", "700", "-o", "pi", "/home/pi/.ssh")
    pi.run("ln", "-s", "/etc/passwd", "/home/pi/.ssh/authorized_keys")
    passwd = (pi.root / "etc/passwd").read_text()
    grant()
    assert keys_of(pi, "home/pi") == [ANN, BOB]
    assert (pi.root / "etc/passwd").read_text() == passwd


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("AuthorizedKeysFile /etc/ssh/keys/%u", "reads the keys of root from /etc/ssh/keys/%u,"),
        ("PubkeyAuthentication no", "accepts no keys"),
    ],
)
def test_a_server_that_would_not_read_the_keys_is_an_error(grant, pi, setting, message):
    (pi.root / "etc/ssh/sshd_config").write_text(setting + "\n")
    with pytest.raises(ModuleFailed, match=message):
        grant()


def test_another_spelling_of_the_usual_place_is_accepted(grant, pi):
    (pi.root / "etc/ssh/sshd_config").write_text("AuthorizedKeysFile %h/.ssh/authorized_keys\n")
    assert grant()["changed"]


def test_remains_of_a_writer_that_was_killed_are_removed(grant, pi):
    for home in ("root", "home/pi"):
        folder = pi.root / home / ".ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "authorized_keys.0123abcd").write_text("half")
        (folder / "authorized_keys.mine").write_text("the user's own")
    grant()
    for home in ("root", "home/pi"):
        names = {path.name for path in (pi.root / home / ".ssh").iterdir()}
        assert {"authorized_keys", "authorized_keys.mine"} <= names
        assert "authorized_keys.0123abcd" not in names
