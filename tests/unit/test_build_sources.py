"""The lab installs Debian from where the host does, and from nowhere else."""

from pathlib import Path

import pytest

from piseduce_runner.errors import UserError
from piseduce_runner.lab.build_sources import Release, debian_sources, host_release

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    return tmp_path


def one_line(etc: Path, text: str) -> None:
    (etc / "apt/sources.list").write_text(text)


def deb822(etc: Path, text: str) -> None:
    (etc / "apt/sources.list.d/debian.sources").write_text(text)


def test_the_hosts_release_is_read(etc: Path) -> None:
    (etc / "os-release").write_text('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
    assert host_release(etc) == Release("bookworm", "12")


def test_another_distribution_is_refused_by_its_name(etc: Path) -> None:
    (etc / "os-release").write_text('PRETTY_NAME="Fedora Linux 41"\nID=fedora\n')
    with pytest.raises(UserError, match="but this host is Fedora Linux 41: run the lab on Debian"):
        host_release(etc)


def test_deb822_sources_keep_their_archive_and_key(etc: Path) -> None:
    deb822(
        etc,
        "# comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian\n"
        "Suites: bookworm bookworm-updates bookworm-backports\n"
        f"Components: main contrib\nSigned-By: {KEYRING}\n",
    )
    assert debian_sources("bookworm", etc).splitlines() == [
        "Components: main",
        "Types: deb",
        "URIs: http://mirror.example/debian",
        "Suites: bookworm bookworm-updates",
        f"Signed-By: {KEYRING}",
    ]


def test_a_key_inside_the_source_is_kept_whole(etc: Path) -> None:
    key = " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----"
    deb822(
        etc,
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n"
        f"Signed-By:\n{key}\n",
    )
    assert f"Signed-By: \n{key}\n" in debian_sources("bookworm", etc)


def test_one_line_sources_are_read_with_their_options(etc: Path) -> None:
    one_line(
        etc,
        "# deb http://commented.example/debian bookworm main\n"
        f"deb [arch=amd64 signed-by={KEYRING}] http://a.example/debian bookworm main # fast\n"
        "deb http://b.example/debian-security bookworm-security main non-free-firmware\n"
        "deb-src http://c.example/debian bookworm main\n",
    )
    text = debian_sources("bookworm", etc)
    assert text.count("URIs:") == 2
    assert (
        f"URIs: http://a.example/debian\nSuites: bookworm\nComponents: main\nSigned-By: {KEYRING}\n"
        in text
    )
    assert "URIs: http://b.example/debian-security\nSuites: bookworm-security\n" in text


@pytest.mark.parametrize(
    "foreign",
    [
        "deb [signed-by=/etc/apt/keyrings/docker.gpg] http://x.example/linux bookworm main",
        "deb http://x.example/pgdg bookworm-pgdg main",
        "deb http://x.example/debian bookworm contrib",
        "deb http://x.example/debian trixie main",
        "deb cdrom:[Debian]/ bookworm main",
    ],
)
def test_what_is_not_this_releases_main_is_left_out(etc: Path, foreign: str) -> None:
    one_line(etc, f"deb http://mirror.example/debian stable main\n{foreign}\n")
    text = debian_sources("bookworm", etc)
    assert text.count("URIs:") == 1
    assert "http://mirror.example/debian" in text


def test_a_disabled_source_is_left_out(etc: Path) -> None:
    deb822(
        etc,
        "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n"
        "Components: main\n",
    )
    with pytest.raises(UserError, match="no apt source for Debian bookworm main"):
        debian_sources("bookworm", etc)


def test_updates_alone_are_not_enough(etc: Path) -> None:
    one_line(etc, "deb http://mirror.example/debian bookworm-updates main\n")
    with pytest.raises(UserError, match="no apt source for Debian bookworm main"):
        debian_sources("bookworm", etc)
