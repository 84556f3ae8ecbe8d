"""`env capture`: what cannot be captured is said in a line, before anything is touched."""

from pathlib import Path

import disk_images
import pytest
from click.testing import CliRunner
from sites import write_site

from piseduce_runner.cli import main
from piseduce_runner.images.add import Wishes, add_environment
from piseduce_runner.planner import Status
from piseduce_runner.site import SiteFolder
from piseduce_runner.store import NewDeployment, Store


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Node 1 is deployed and somebody else's; node 2 is lost."""
    folder = write_site(tmp_path_factory.mktemp("capture") / "site")
    image = disk_images.make(folder.parent / "debian.img", disk_images.SMALL)
    add_environment(image, folder / "environments", Wishes("debian"))
    store = Store.open(SiteFolder(folder).database)
    for node, status in (("node-1", Status.DEPLOYED), ("node-2", Status.LOST)):
        new = NewDeployment(node, "deploy", "debian", "somebody", 0, "boot_conf")
        store.begin([new], "me", 0, 10)
        store.end(node, "me", status, "", 1, {})
    store.close()
    return folder


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("node-9", "mine"), "node-9"),
        (("node-2", "mine"), "node-2 is lost: only a deployed system"),
        (("node-1", "debian"), "there is an environment of this name"),
        (("node-1", "No Name"), "cannot be an environment's name"),
        (("node-1", "../mine"), "cannot be an environment's name"),
        (("node-1", "mine", "--login", "No User"), "cannot be a user's name"),
        (("node-1", "mine", "--owner", "no body"), "is not understood"),
        (("node-1", "mine"), "node-1 is somebody's"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(site, words, reason):
    before = Store.open(SiteFolder(site).database)
    try:
        held = before.deployments()
        result = CliRunner().invoke(main, ["--site", str(site), "env", "capture", *words])
        assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
        assert reason in result.output
        assert before.deployments() == held
        assert before.acts() == []
    finally:
        before.close()
    assert [folder.name for folder in (site / "environments").iterdir()] == ["debian"]
