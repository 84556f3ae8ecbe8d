"""A site's processes for nodes whose environment is there, or gone."""

import pytest
from sites import write_site

from piseduce_runner.errors import UserError
from piseduce_runner.site_processes import SiteProcesses
from piseduce_runner.site_reader import load_site


def test_a_node_is_rebooted_without_its_environment_and_not_deployed(tmp_path):
    processes = SiteProcesses(load_site(write_site(tmp_path)))
    assert processes("reboot", "gone").name == "reboot"
    with pytest.raises(UserError, match="unknown environment 'gone'"):
        processes("deploy", "gone")


def test_a_process_that_is_not_in_the_table_is_told(tmp_path):
    with pytest.raises(UserError, match="has no process 'dance'"):
        SiteProcesses(load_site(write_site(tmp_path)))("dance", "")
