"""Hazards 13 to 20: sizes, images, names and keys that the original believed, and old data."""

import subprocess
from dataclasses import replace
from pathlib import Path

import disk_images
import pytest
from bench import DEPLOY, PROCESSES, write_environment
from boot.conftest import ModuleFailed
from card import image as images
from card.test_system_conf import MANAGER
from samples import GIB, MIB, SAMPLES, TOO_LARGE_FOR_2_GIB

from piseduce_runner import environments
from piseduce_runner.deployment import check_part_size, parse_part_size, read_ssh_keys
from piseduce_runner.environments import list_environments
from piseduce_runner.errors import UserError
from piseduce_runner.expressions import Facts
from piseduce_runner.families import find_family, load_families
from piseduce_runner.images.add import Wishes, add_environment
from piseduce_runner.images.steps import SILENT
from piseduce_runner.images.survey import survey
from piseduce_runner.images.unpack import raw_image
from piseduce_runner.planner import applies
from piseduce_runner.policy import timeout_seconds


@pytest.fixture
def environment_of(tmp_path):
    """The environment of a sample."""
    plain = environments.load(write_environment(tmp_path, "plain"))

    def of(sample):
        return replace(
            plain,
            name=sample.name,
            image_bytes=sample.image_bytes,
            root_start_sector=sample.root_start_sector,
            root_sectors=sample.root_mib * MIB // 512,
        )

    return of


@pytest.mark.parametrize("text", ["xgb", "gb", "5", "-5gb", "5.5gb", "5gb; reboot", "hole", ""])
def test_hazard_13_a_part_size_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="part size"):
        parse_part_size(text)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_hazard_13_a_part_smaller_than_the_images_is_refused(environment_of, sample):
    environment, asked = environment_of(sample), parse_part_size("2gb")
    if sample.name in TOO_LARGE_FOR_2_GIB:
        with pytest.raises(UserError, match="smaller than the root partition"):
            check_part_size(asked, environment, [])
    else:
        check_part_size(asked, environment, [])


def partition(run_module, card, state, **options):
    return run_module(
        "card_partition", device=card.device, state=state, disk_id=images.DISK_ID, timeout=30,
        start_sector=images.ROOT_START, image_sectors=images.ROOT_SECTORS, **options,
    )  # fmt: skip


@pytest.mark.parametrize("size", [20 * MIB, 200 * MIB], ids=["than the image", "than the card"])
def test_hazard_13_the_card_is_asked_once_more_before_it_is_touched(written, run_module, size):
    before = written.table()
    run = partition(run_module, written, "present", size_bytes=size)
    assert run.hopeless
    assert written.table() == before


def test_hazard_14_a_part_of_5_gib_has_its_sectors_and_not_one_more(
    make_card, run_module, raw_image
):
    card = make_card(6 * GIB)
    options = ("bs=4M", "conv=notrunc,sparse,fsync", "status=none")
    images.call("dd", f"if={raw_image}", f"of={card.path}", *options)
    images.call("blockdev", "--flushbufs", card.device)
    images.call("partx", "--update", card.device)
    assert not partition(run_module, card, "absent").failed
    run = partition(run_module, card, "present", size_bytes=parse_part_size("5gb"))
    assert run.result["sectors"] == card.table()["partitions"][1]["size"] == 10485760


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
@pytest.mark.parametrize("nodes", [1, 24])
def test_hazard_15_the_time_for_a_copy_and_its_check_grows_with_the_image(sample, nodes):
    """8 MB/s is what the original itself expects of a card; the link is the manager's."""
    facts = Facts(
        image_bytes=sample.image_bytes,
        mapped_bytes=sample.image_bytes,
        compressed_bytes=sample.image_bytes // 3,
        nodes=nodes,
    )
    seconds = {state.name: timeout_seconds(state.timeout, facts) for state in DEPLOY.states}
    card = sample.image_bytes / 8e6
    assert seconds["env_check"] > card
    assert seconds["env_copy"] > card
    assert seconds["env_copy"] > facts.compressed_bytes * min(nodes, 12) / 10e6


# Families


def test_hazard_16_a_raspberry_pi_3_does_not_boot_from_the_card_later(
    written, run_module, namespace
):
    run_module("card_mount", device=written.device, state="mounted", timeout=60)
    listing = [*namespace, "ls", "/mnt/piseduce/boot"]
    assert "bootcode.bin" in images.call(*listing).stdout.split()
    run = run_module(
        "system_conf", device=written.device, hostname="node-7", manager_key=MANAGER, timeout=60,
        steps=list(find_family(None, "raspbian").system_conf), login="pi",
    )  # fmt: skip
    assert not run.failed, run.message
    assert "bootcode.bin" not in images.call(*listing).stdout.split()


@pytest.mark.parametrize(
    ("files", "directory"),
    [(disk_images.UBUNTU, "/boot/firmware"), ({"tce/mydata.tgz": ""}, "/mnt/mmcblk0p1")],
    ids=["ubuntu", "picore"],
)
def test_hazard_16_boot_files_are_fetched_from_where_the_image_mounts_them(
    tmp_path, files, directory
):
    image = disk_images.make(tmp_path / "any.img", replace(disk_images.SMALL, root=files))
    with raw_image(image, tmp_path, SILENT) as raw:
        assert survey(raw, load_families().values()).boot_directory == directory


def test_hazard_16_a_folder_in_which_nothing_is_mounted_gives_no_boot_files(module, tmp_path):
    """piCore does not mount its boot partition; the folder is there, and empty."""
    (tmp_path / "tftp").mkdir()
    (tmp_path / "mmcblk0p1").mkdir()
    with pytest.raises(ModuleFailed, match="nothing is mounted there"):
        module(
            "tftp_folder", root=str(tmp_path / "tftp"), serial="10000001", timeout=20,
            source_folder=str(tmp_path / "mmcblk0p1"), source_mounted=True,
        )  # fmt: skip


@pytest.mark.parametrize("family", ["tiny_core", "Raspbian", ""])
def test_hazard_17_an_unknown_family_is_refused_not_passed_over(
    tmp_path, written, run_module, family
):
    folder = write_environment(tmp_path, family=family)
    with pytest.raises(UserError, match="family"):
        find_family(tmp_path, environments.load(folder).family)
    run = run_module(
        "system_conf", device=written.device, hostname="node-7", manager_key=MANAGER, timeout=60,
        steps=[family], login="pi",
    )  # fmt: skip
    assert run.failed
    assert "has no step" in run.message


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_hazard_18_short_ssh_keys_are_keys(tmp_path, bench, kind):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / kind], check=True)
    (key,) = read_ssh_keys([tmp_path / f"{kind}.pub"])
    assert len(key) < 256
    one = bench()
    request = replace(one.request("node-1"), ssh_keys=(key,))
    one.drive(one.asks().deploy(request, replace=False, until=None))
    (given,) = one.runner.runs[-1].batch.variables.values()
    assert one.runner.runs[-1].batch.states[-1].name == "user_conf"
    assert given["deployment"]["ssh_keys"] == [key]


# Environments


def test_hazard_19_an_environment_is_neither_replaced_nor_offered_before_it_is_whole(tmp_path):
    image = disk_images.make(tmp_path / "raspios.img", disk_images.SMALL)
    site, offered = tmp_path / "environments", []

    class Look:
        def step(self, title, total):
            offered.append(list_environments(site))

        def at(self, done):
            pass

    made = add_environment(image, site, progress=Look()).environment
    assert offered and all(seen == ([], []) for seen in offered)
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    with pytest.raises(UserError, match="there is an environment of this name"):
        add_environment(image, site, Wishes(login="other"))
    assert {path.name: path.read_bytes() for path in made.folder.iterdir()} == before


def test_hazard_19_what_is_said_of_an_image_is_kept(tmp_path):
    image = disk_images.make(tmp_path / "raspios.img", disk_images.SMALL)
    (tmp_path / "environments").mkdir()
    made = add_environment(image, tmp_path / "environments", Wishes(login="student")).environment
    assert environments.load(made.folder).login == "student"


# What is left on a card

SECRET = b"the old user's secret" * 100


@pytest.fixture
def used(written, namespace):
    """A card with a user's file in its system."""
    script = f"mount {written.device}p2 /mnt; cp /dev/stdin /mnt/secret; sync -f /mnt; umount /mnt"
    subprocess.run([*namespace, "sh", "-c", script], input=SECRET, check=True)
    assert SECRET in Path(written.path).read_bytes()
    return written


def test_hazard_20_a_card_can_be_erased_before_its_node_is_given_back(used, run_module):
    names = [s.name for s in PROCESSES["destroy"].states if applies(s, frozenset({"erase"}))]
    assert names.index("ssh_test") < names.index("erase_card") < names.index("destroying")
    run = run_module("card_erase", device=used.device, timeout=60)
    assert not run.failed, run.message
    assert SECRET not in Path(used.path).read_bytes()


def test_hazard_20_the_next_user_does_not_find_the_last_ones_data(used, run_module, copy_options):
    assert not run_module("card_write", device=used.device, **copy_options).failed
    images.call("blockdev", "--flushbufs", used.device)
    assert SECRET not in Path(used.path).read_bytes()


def test_hazard_20_a_configured_card_is_released_clean_before_the_restart(
    written, run_module, namespace
):
    run_module("card_mount", device=written.device, state="mounted", timeout=60)
    images.call(*namespace, "touch", "/mnt/piseduce/root/written")
    run = run_module("card_mount", device=written.device, state="unmounted", timeout=60)
    assert not run.failed, run.message
    images.call("e2fsck", "-f", "-n", f"{written.device}p2")
    images.call("fsck.vfat", "-n", f"{written.device}p1")
