"""What a deployment may be asked to be: part sizes, keys, passwords."""

import subprocess
from pathlib import Path

import pytest

from piseduce_runner import deployment
from piseduce_runner.environments import Environment
from piseduce_runner.errors import UserError
from piseduce_runner.site import Node

MIB = 1024**2


def environment(**changes):
    values = {
        "folder": Path("/nowhere"), "name": "debian", "family": "raspbian", "login": "pi",
        "boot_directory": "/boot/firmware", "image": "image.img.zst", "block_map": "image.bmap",
        "image_bytes": 500 * MIB, "mapped_bytes": 200 * MIB, "compressed_bytes": 60 * MIB,
        "compressed_sha256": "0" * 64, "block_map_sha256": "0" * 64, "disk_id": "0xc0ffee01",
        "boot_partition": 1, "boot_start_sector": 8192, "boot_sectors": 131072,
        "root_partition": 2, "root_start_sector": 139264, "root_sectors": 400 * MIB // 512,
    }  # fmt: skip
    return Environment(**values | changes)


def node(card_bytes=None):
    return Node("node-1", "192.0.2.1", "dc:a6:32:00:00:01", "10000001", "RPI4B4G", "switch-1", 1,
                "/dev/mmcblk0", card_bytes)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"), [("whole", 0), ("8gb", 8 * 1024**3), ("512mb", 512 * MIB), ("2GB", 2 << 30)]
)
def test_part_sizes(text, size):
    assert deployment.parse_part_size(text) == size


@pytest.mark.parametrize("text", ["", "0gb", "-1gb", "xgb", "8", "8.5gb", "8 gb", "1tb", "all"])
def test_part_sizes_that_are_refused(text):
    with pytest.raises(UserError, match="is not understood"):
        deployment.parse_part_size(text)


def test_a_part_smaller_than_the_image_is_refused_and_says_how_large_it_must_be():
    with pytest.raises(UserError, match=r"smaller than the root partition of debian \(400 MiB\)"):
        deployment.check_part_size(399 * MIB, environment(), [node()])
    deployment.check_part_size(400 * MIB, environment(), [node()])


def test_a_part_larger_than_a_known_card_is_refused():
    with pytest.raises(UserError, match="node-1: its card has 1000 MiB"):
        deployment.check_part_size(1024 * MIB, environment(), [node(1000 * MIB)])
    with pytest.raises(UserError, match="node-1: its card has 300 MiB"):
        deployment.check_part_size(0, environment(), [node(300 * MIB)])
    deployment.check_part_size(0, environment(), [node(500 * MIB)])


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me {{ x }}", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def test_keys_are_read_with_comments_and_blank_lines_left_out(key, tmp_path):
    line = key.with_suffix(".pub").read_text()
    file = tmp_path / "keys"
    file.write_text(f"# mine\n\n{line}{line}")
    assert deployment.read_ssh_keys([file]) == (line.strip(),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no SSH key"),
        ("ssh-ed25519\n", "keys:1: not a valid public SSH key"),
        ("ssh-ed25519 AAAAnonsense me\n", "keys:1: not a valid"),
        ("\nhello world\n", "keys:2: not a public"),
        ('command="reboot" {line}', "keys:1: not a public SSH key"),
        ("cert-authority {line}", "keys:1: not a public SSH key"),
        ("ssh-ed25519 AAAA\x07\n", "keys:1: not a public"),
    ],
)
def test_a_malformed_key_is_refused_with_file_and_line(key, tmp_path, text, message):
    file = tmp_path / "keys"
    file.write_text(text.replace("{line}", key.with_suffix(".pub").read_text()))
    with pytest.raises(UserError, match=message):
        deployment.read_ssh_keys([file])


def test_a_private_key_and_a_missing_file_are_refused(key, tmp_path):
    with pytest.raises(UserError, match=r"is a private key; give the public one \(.*key\.pub\)"):
        deployment.read_ssh_keys([key])
    with pytest.raises(UserError, match="cannot be read"):
        deployment.read_ssh_keys([tmp_path / "nowhere.pub"])


@pytest.mark.parametrize(
    "password", ["correct horse", "'\"$(id) `id` \\ $6$", "h\u00e9 \u6f22", "x" * 128]
)
def test_a_legal_password_becomes_a_hash_that_matches_it(password):
    hashed = deployment.hash_password(password)
    salt = hashed.split("$")[2]
    again = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", salt, "-stdin"],
        input=password, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert hashed == again
    assert deployment.hash_password(password) != hashed


@pytest.mark.parametrize("password", ["", "two\nlines", "nul\0", "tab\t", "x" * 129])
def test_an_illegal_password_is_refused_without_being_shown(password):
    with pytest.raises(UserError, match="the password") as error:
        deployment.hash_password(password)
    assert not password or password not in str(error.value)
