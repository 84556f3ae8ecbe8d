"""Reading a site: what is taken from the inventory, and each mistake by its name."""

import pytest
from sites import node, switch, write_site

from piseduce_runner.errors import UserError
from piseduce_runner.known_hosts import login_line, write_known_hosts
from piseduce_runner.site_reader import load_site, survey_site


def test_a_site_is_read_with_its_group_variables(tmp_path):
    site = load_site(write_site(tmp_path))
    assert list(site.nodes) == ["node-1", "node-2"]
    assert site.nodes["node-2"].address == "192.0.2.2"
    assert (site.nodes["node-1"].card_device, site.nodes["node-1"].card_bytes) == (
        "/dev/mmcblk0",
        None,
    )
    assert site.switches["switch-1"].port_count == 8
    assert site.image_url == "http://127.0.0.1:8000/environments"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda i: node(i).pop("node_mac"), "node node-1: node_mac is missing"),
        (lambda i: node(i).update(node_mac="dc-a6-32"), "node_mac is 'dc-a6-32'"),
        (
            lambda i: node(i).update(node_serial=10000001),
            "node_serial is 10000001; it must be text",
        ),
        (lambda i: node(i).update(node_serial="../../etc"), "node_serial is '../../etc'"),
        (lambda i: node(i).update(ansible_host="here"), "ansible_host is 'here'"),
        (lambda i: node(i).update(ansible_host="192.0.2.2"), "ansible_host is also that of"),
        (lambda i: node(i).update(ansible_connection="local"), "nodes are reached by ssh"),
        (lambda i: node(i).update(node_port=2), "node_switch and node_port is also that of node-1"),
        (lambda i: node(i).update(node_port=9), "node_port is 9; switch-1 has 8 ports"),
        (lambda i: node(i).update(node_port=8), "one of switch_forbidden_ports"),
        (lambda i: node(i).update(node_port="1"), "node_port is '1'; it must be a whole number"),
        (lambda i: node(i).update(node_switch="none"), "'none', which is not in group `switches`"),
        (lambda i: node(i).update(node_card_device="/dev/../etc/x"), "node_card_device"),
        (lambda i: switch(i).update(switch_forbidden_ports="8"), "must be a list"),
        (
            lambda i: switch(i).pop("switch_community"),
            "switch switch-1: switch_community is missing",
        ),
        (
            lambda i: switch(i).pop("switch_forbidden_ports"),
            "must be a list of port numbers ([] if none)",
        ),
        (lambda i: switch(i).update(switch_version="v3"), "switch_user is missing"),
        (
            lambda i: i["all"]["children"]["switches"]["hosts"].update(
                {"switch-2": switch(i) | {"switch_forbidden_ports": []}}
            ),
            "switch switch-2: its ports are also switch-1's",
        ),
        (lambda i: switch(i).update(switch_version="v9"), "switch_version is 'v9'"),
        (lambda i: switch(i).update(switch_udp_port="snmp"), "switch_udp_port is 'snmp'"),
        (
            lambda i: i["all"]["vars"].update(piseduce_image_url="foo"),
            "piseduce_image_url is 'foo'",
        ),
        (lambda i: i["all"]["vars"].pop("piseduce_tftp_root"), "piseduce_tftp_root is missing"),
        (lambda i: i["all"]["children"].pop("nodes"), "no host in group `nodes`"),
        (lambda i: i["all"]["vars"].pop("piseduce_image_url"), "piseduce_image_url is missing"),
        (
            lambda i: i["all"]["children"]["nodes"]["hosts"].update({"Node_3": node(i)}),
            "becomes its hostname",
        ),
    ],
)
def test_a_mistake_in_the_inventory_names_host_and_variable(tmp_path, spoil, message):
    with pytest.raises(UserError, match="inventory") as error:
        load_site(write_site(tmp_path, spoil))
    assert message in str(error.value)


def test_a_yaml_mistake_is_reported_with_its_line(tmp_path):
    write_site(tmp_path)
    hosts = tmp_path / "inventory" / "hosts.yml"
    hosts.write_text("all:\n  vars: {a: 1\nnodes: x\n")
    with pytest.raises(UserError) as error:
        load_site(tmp_path)
    assert str(error.value).startswith(f"{hosts}:3: ")


def test_a_folder_without_inventory_is_no_site(tmp_path):
    with pytest.raises(UserError, match="is no site"):
        load_site(tmp_path)


def test_unknown_nodes_are_refused_with_the_nearest_name(tmp_path):
    site = load_site(write_site(tmp_path))
    assert [n.name for n in site.choose_nodes(["node-2", "node-2"])] == ["node-2"]
    with pytest.raises(UserError, match="unknown node: nod-1; did you mean node-1"):
        site.choose_nodes(["node-1", "nod-1"])
    # Another number is another board: no guess.
    with pytest.raises(UserError, match="unknown node: node-9; `piseduce-run status` lists"):
        site.choose_nodes(["node-9"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda site: (site / "keys/manager_ed25519").unlink(), "private key cannot be read"),
        (lambda site: (site / "keys/manager_ed25519").chmod(0o644), "chmod 600"),
        (
            lambda site: (site / "keys/nfs_host_key.pub").write_text("junk"),
            "not one line of a public",
        ),
        (lambda site: (site / "keys/manager_ed25519.pub").unlink(), "No such file"),
        (lambda site: (site / "tftp").rmdir(), "piseduce_tftp_root"),
        (lambda site: (site / "nfs-boot/cmdline.txt").unlink(), "piseduce_nfs_boot_files"),
    ],
)
def test_what_a_deployment_needs_is_missed_before_it_begins(tmp_path, spoil, message):
    site = load_site(write_site(tmp_path))
    site.check_ready()
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        site.check_ready()


def test_known_hosts_name_systems_rather_than_addresses(tmp_path):
    site = load_site(write_site(tmp_path))
    write_known_hosts(site, {"node-2": "ssh-ed25519 AAAAtwo", "gone-9": "ssh-ed25519 AAAAnine"})
    assert site.known_hosts.read_text().splitlines() == [
        "nfspi ssh-ed25519 AAAAnfs",
        "node-2,192.0.2.2 ssh-ed25519 AAAAtwo",
    ]
    assert login_line(site, site.nodes["node-2"], "pi").endswith("known_hosts pi@192.0.2.2")


def test_a_survey_goes_on_after_mistakes_and_blames_each_once(tmp_path):
    def spoil(inventory):
        node(inventory, "node-1").pop("node_mac")
        hosts = inventory["all"]["children"]["switches"]["hosts"]
        hosts["switch-2"] = {"switch_address": "192.0.2.253", "switch_forbidden_ports": []}
        node(inventory, "node-2")["node_switch"] = "switch-2"

    survey = survey_site(write_site(tmp_path, spoil))
    first, second = map(str, survey.mistakes)
    assert "switch switch-2: switch_community is missing" in first
    assert "node node-1: node_mac is missing" in second
    assert list(survey.site.switches) == ["switch-1"]
    assert survey.site.nodes == {}
    assert survey.variables["switch-1"]["switch_community"] == "private"


def test_a_survey_without_the_sites_own_variables_has_no_site(tmp_path):
    survey = survey_site(write_site(tmp_path, lambda i: i["all"]["vars"].pop("piseduce_image_url")))
    assert survey.site is None
    assert "piseduce_image_url is missing" in str(survey.mistakes[0])
