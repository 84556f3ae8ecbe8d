"""The lab's switch, asked by net-snmp's command line tools."""

import asyncio
import subprocess

import pytest
from poe_bench import ACCESS, ADMIN_OID, STATUS_OID, Served

from piseduce_runner.lab.switch import Access, Detection, PoeSwitch, serve

READS = ["-v2c", "-c", "reads"]
WRITES = ["-v2c", "-c", "writes"]
USER = ["-v3", "-u", "poe", "-a", "SHA", "-A", "auth-password"]
AUTH_PRIV = [*USER, "-l", "authPriv", "-x", "AES", "-X", "priv-password"]
INTEGER_ON, INTEGER_OFF = ["i", "1"], ["i", "2"]


def tool(served: Served, name: str, login: list[str], *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [name, "-m", "", "-On", "-Oe", "-t", "1", "-r", "0", *login,
         f"{served.address}:{served.udp_port}", *words],
        capture_output=True,
        text=True,
        timeout=20,
    )  # fmt: skip


def lines(done: subprocess.CompletedProcess) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def admin(number: int) -> str:
    return f".{ADMIN_OID}.{number}"


@pytest.mark.parametrize("login", [WRITES, AUTH_PRIV], ids=["v2c", "v3"])
def test_snmpset_switches_and_snmpget_shows(served, login):
    assert lines(tool(served, "snmpset", login, admin(3), *INTEGER_ON)) == [
        f"{admin(3)} = INTEGER: 1"
    ]
    assert served.powered == [(3, True)]
    assert lines(tool(served, "snmpget", login, admin(3), f".{STATUS_OID}.3", admin(4))) == [
        f"{admin(3)} = INTEGER: 1",
        f".{STATUS_OID}.3 = INTEGER: 3",
        f"{admin(4)} = INTEGER: 2",
    ]


@pytest.mark.parametrize("walk", ["snmpwalk", "snmpbulkwalk"])
def test_a_walk_sees_every_object_once_and_in_order(served, walk):
    seen = lines(tool(served, walk, READS, ".1.3.6.1.2.1"))
    names = [line.split(" = ")[0] for line in seen if "No more variables" not in line]
    numbers = [[int(part) for part in name.split(".")[1:]] for name in names]
    assert numbers == sorted(numbers)
    assert len(set(names)) == len(names)
    assert names[0] == ".1.3.6.1.2.1.1.1.0"
    assert sum(name.startswith(f".{ADMIN_OID}.") for name in names) == 8
    assert sum(name.startswith(f".{STATUS_OID}.") for name in names) == 8


def test_a_walk_of_one_column_shows_the_offset(start_switch):
    served = start_switch(first_index=49)
    seen = lines(tool(served, "snmpwalk", READS, f".{ADMIN_OID}"))
    assert [line.split(" = ")[0].rpartition(".")[2] for line in seen] == [
        str(number) for number in range(49, 57)
    ]


def test_missing_objects_are_told_apart(served):
    seen = lines(tool(served, "snmpget", READS, admin(9), ".1.3.6.1.2.1.2.1.0"))
    assert "No Such Instance" in seen[0]
    assert "No Such Object" in seen[1]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ([admin(2), "i", "7"], "wrongValue"),
        ([admin(2), "s", "on"], "wrongType"),
        ([admin(9), "i", "1"], "noCreation"),
        ([f".{STATUS_OID}.2", "i", "3"], "notWritable"),
        ([".1.3.6.1.2.1.1.5.0", "s", "name"], "notWritable"),
    ],
)
def test_a_set_is_all_or_nothing_and_names_the_object(served, second, reason):
    done = tool(served, "snmpset", WRITES, admin(1), *INTEGER_ON, *second, admin(3), *INTEGER_ON)
    assert done.returncode == 2
    assert f"Reason: {reason}" in done.stderr
    assert f"Failed object: {second[0]}" in done.stderr
    assert served.powered == []
    assert not any(served.switch.admin.values())


def test_the_read_community_cannot_write(served):
    done = tool(served, "snmpset", READS, admin(1), *INTEGER_ON)
    assert "Reason: noAccess" in done.stderr
    assert served.powered == []


@pytest.mark.parametrize(
    ("login", "says"),
    [
        (["-v2c", "-c", "guess"], "Timeout"),
        ([*USER, "-l", "noAuthNoPriv"], "Unsupported security level"),
        ([*USER, "-l", "authNoPriv"], "Unsupported security level"),
        (["-v3", "-u", "nobody", "-l", "noAuthNoPriv"], "Unknown user name"),
        ([*AUTH_PRIV, "-A", "another-password"], "Authentication failure"),
        ([*AUTH_PRIV, "-X", "another-password"], "Decryption error"),
    ],
)
def test_strangers_learn_and_do_nothing(served, login, says):
    for name, words in (("snmpget", [admin(1)]), ("snmpset", [admin(1), *INTEGER_ON])):
        done = tool(served, name, login, *words)
        assert done.returncode != 0
        assert says in done.stderr
    assert served.powered == []
    assert list(served.switch.recent) == []


def test_snmp_v1_is_not_spoken(served):
    assert tool(served, "snmpget", ["-v1", "-c", "writes"], admin(1)).returncode != 0


def test_access_that_is_not_configured_is_closed(start_switch):
    served = start_switch(access=Access(read_community="", write_community="writes"))
    assert tool(served, "snmpget", READS, admin(1)).returncode != 0
    assert tool(served, "snmpget", ["-v2c", "-c", ""], admin(1)).returncode != 0
    assert tool(served, "snmpget", AUTH_PRIV, admin(1)).returncode != 0
    lines(tool(served, "snmpget", WRITES, admin(1)))


def test_a_powered_port_shows_what_its_board_does(start_switch):
    boards = {1: Detection.SEARCHING, 2: Detection.DELIVERING_POWER}
    served = start_switch(detect=boards.__getitem__)
    served.turn(1, True)
    served.turn(2, True)
    seen = lines(tool(served, "snmpget", READS, *(f".{STATUS_OID}.{n}" for n in (1, 2, 3))))
    assert [line.rpartition(" ")[2] for line in seen] == ["2", "3", "1"]


def test_stuck_and_deaf_ports(start_switch):
    served = start_switch(stuck_off=[1], stuck_on=[2], deaf=[3])
    for wanted in (INTEGER_ON, INTEGER_OFF):
        words = [word for number in (1, 2, 3) for word in (admin(number), *wanted)]
        lines(tool(served, "snmpset", WRITES, *words))
        if wanted == INTEGER_ON:
            assert served.switch.status[1] == Detection.SEARCHING
    assert served.powered == [(2, True)]
    assert served.switch.admin[2] is False
    assert served.switch.status[2] == Detection.DELIVERING_POWER
    assert served.switch.admin[3] is False


def test_the_hook_hears_of_changes_only(served):
    for _ in range(2):
        lines(tool(served, "snmpset", WRITES, admin(1), *INTEGER_ON))
    assert served.powered == [(1, True)]


def test_a_taken_port_is_an_os_error_and_leaves_nothing_open(served):
    async def second() -> None:
        async with serve(PoeSwitch(1, print), served.address, served.udp_port, ACCESS):
            pytest.fail("the port is taken")

    with pytest.raises(OSError, match="in use"):
        asyncio.run(second())


def test_the_port_is_free_again_once_the_block_is_left():
    async def twice() -> None:
        place = ("127.0.0.1", 0)
        for _ in range(2):
            async with serve(PoeSwitch(1, print), *place, ACCESS) as place:
                pass
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(twice())


def test_short_v3_passwords_are_refused():
    async def start() -> None:
        access = Access(user="poe", auth_password="short", priv_password="short")  # noqa: S106
        async with serve(PoeSwitch(1, print), "127.0.0.1", 0, access):
            pytest.fail("it serves")

    with pytest.raises(ValueError, match="at least 8 characters"):
        asyncio.run(start())
