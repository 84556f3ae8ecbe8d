"""SNMPv3 under attack: what is forged, altered or played again is no answer."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from ansible.module_utils import piseduce_usm
from ansible.module_utils.piseduce_snmp import Community, NotOurs, SecurityRefused, SendAgain
from ansible.module_utils.piseduce_usm import AUTH, PRIV, Usm
from poe_bench import V3, Served, one_line, poe_port
from pyasn1.codec.ber import encoder
from pysnmp.proto.api import v2c
from pysnmp.proto.mpmod.rfc3412 import SNMPv3Message
from pysnmp.proto.secmod.rfc3414.service import UsmSecurityParameters

ENGINE = bytes.fromhex("000000000000000000000002")  # that of RFC 3414, A.3
UNKNOWN_ENGINE = (1, 3, 6, 1, 6, 3, 15, 1, 1, 4, 0)
NOT_IN_TIME_WINDOW = (1, 3, 6, 1, 6, 3, 15, 1, 1, 2, 0)


def report(number: int, cause: tuple[int, ...], engine: bytes = ENGINE) -> bytes:
    """A report as anybody can send it: not authenticated."""
    pdu = v2c.ReportPDU()
    v2c.apiPDU.set_defaults(pdu)
    v2c.apiPDU.set_varbinds(pdu, [(cause, v2c.Counter32(1))])
    message = SNMPv3Message()
    message["msgVersion"] = 3
    header = message["msgGlobalData"]
    header["msgID"], header["msgMaxSize"] = number, 65507
    header["msgFlags"], header["msgSecurityModel"] = b"\x00", 3
    parameters = UsmSecurityParameters()
    parameters["msgAuthoritativeEngineId"] = engine
    parameters["msgAuthoritativeEngineBoots"] = 7
    parameters["msgAuthoritativeEngineTime"] = 1000
    parameters["msgUserName"] = b""
    parameters["msgAuthenticationParameters"] = b""
    parameters["msgPrivacyParameters"] = b""
    message["msgSecurityParameters"] = encoder.encode(parameters)
    scoped = message["msgData"]["plaintext"]
    scoped["contextEngineId"], scoped["contextName"] = engine, b""
    scoped["data"].setComponentByType(pdu.tagSet, pdu)
    return encoder.encode(message)


def message_id(usm: Usm) -> int:
    (number,) = usm._pending
    return number


def introduced(auth_protocol: str = "sha", password: str = "maplesyrup") -> Usm:  # noqa: S107
    """A Usm that has met the agent."""
    usm = Usm("poe", auth_protocol, password, "aes", "priv-password")
    usm.encode(request())
    with pytest.raises(SendAgain):
        usm.decode(report(message_id(usm), UNKNOWN_ENGINE))
    return usm


def request():
    pdu = v2c.GetRequestPDU()
    v2c.apiPDU.set_defaults(pdu)
    return pdu


def answer(usm: Usm, flags: int = AUTH | PRIV, engine: bytes = ENGINE, age: int = 0) -> bytes:
    """What the agent would send: both sides have the same keys, so this side can make it."""
    pdu = v2c.ResponsePDU()
    v2c.apiPDU.set_defaults(pdu)
    boots, seconds = usm._agent_time()
    return usm._message(pdu, engine, flags, b"poe", (boots, seconds - age))


@pytest.mark.parametrize(
    ("protocol", "key"),
    [
        ("md5", "526f5eed9fcce26f8964c2930787d82b"),
        ("sha", "6695febc9288e36282235fc7151f128497b38f3f"),
    ],
)
def test_keys_are_localized_as_in_the_rfc(protocol, key):
    """RFC 3414, A.3.1 and A.3.2: the password maplesyrup."""
    assert introduced(protocol)._auth_key.hex() == key


@pytest.mark.parametrize("priv_protocol", ["des", "aes"])
def test_no_two_users_of_one_import_encrypt_with_the_same_salts(priv_protocol):
    """A worker is forked for each node, after pysnmp was imported."""
    salts = set()
    for _ in range(8):
        usm = Usm("poe", "sha", "maplesyrup", priv_protocol, "priv-password")
        usm.encode(request())
        with pytest.raises(SendAgain):
            usm.decode(report(message_id(usm), UNKNOWN_ENGINE))
        _secret, salt = usm._encrypt(b"the same", (7, 1000))
        salts.add(bytes(salt))
    assert len(salts) == 8


def test_a_proper_answer_is_taken_once():
    usm = introduced()
    datagram = answer(usm)
    assert usm.decode(datagram).tagSet == v2c.ResponsePDU.tagSet
    with pytest.raises(NotOurs):
        usm.decode(datagram)


@pytest.mark.parametrize("flags", [0, AUTH])
def test_an_answer_that_is_less_protected_than_the_request_is_dropped(flags):
    usm = introduced()
    with pytest.raises(NotOurs):
        usm.decode(answer(usm, flags))


def test_no_bit_of_an_answer_can_be_changed():
    usm = introduced()
    datagram = answer(usm)
    for place in range(len(datagram)):
        altered = bytearray(datagram)
        altered[place] ^= 1
        with pytest.raises((NotOurs, SecurityRefused)):
            usm.decode(bytes(altered))
    usm.decode(datagram)


def test_an_answer_of_another_engine_is_dropped():
    usm = introduced()
    with pytest.raises(NotOurs):
        usm.decode(answer(usm, engine=b"another engine"))


def test_an_old_answer_is_dropped():
    """RFC 3414, 3.2, 7b: outside of the time window."""
    usm = introduced()
    usm.decode(answer(usm))
    usm.decode(answer(usm, age=piseduce_usm.TIME_WINDOW - 1))
    with pytest.raises(NotOurs):
        usm.decode(answer(usm, age=piseduce_usm.TIME_WINDOW + 1))


def test_our_clock_is_not_set_by_anybody():
    usm = introduced()
    usm.encode(request())
    with pytest.raises(NotOurs):
        usm.decode(report(message_id(usm), NOT_IN_TIME_WINDOW))


def test_a_report_to_something_that_was_not_asked_is_dropped():
    usm = introduced()
    usm.encode(request())
    with pytest.raises(NotOurs):
        usm.decode(report(message_id(usm) ^ 1, UNKNOWN_ENGINE, b"another engine"))


def test_an_engine_that_changes_with_every_answer_is_an_error():
    usm = introduced()
    usm.encode(request())
    with pytest.raises(SecurityRefused, match="two devices may share its address"):
        usm.decode(report(message_id(usm), UNKNOWN_ENGINE, b"another engine"))


@pytest.mark.parametrize(
    "noise",
    [b"", b"\x30\x00", b"\x30\x82\xff\xff", bytes(100), b"\x30\x88" + b"\xff" * 8],
)
def test_noise_is_dropped(noise):
    for security in (introduced(), Community("public")):
        with pytest.raises(NotOurs):
            security.decode(noise)


def test_a_manager_without_ciphers_is_told_what_is_missing(monkeypatch):
    usm = introduced()
    monkeypatch.setattr("pysnmp.proto.secmod.rfc3826.priv.aes.PysnmpCryptoError", True)
    with pytest.raises(SecurityRefused, match="the Python library `cryptography`"):
        usm.encode(request())


@contextmanager
def relay(served: Served, tamper: Callable[[bytes], list[bytes]]) -> Iterator[dict]:
    """Somebody between the module and the switch, who changes the answers. Yields the place."""
    front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    front.bind(("127.0.0.1", 0))
    back.connect((served.address, served.udp_port))
    back.settimeout(5)

    def pass_on() -> None:
        while True:
            datagram, sender = front.recvfrom(65535)
            if datagram == b"end":
                return
            back.send(datagram)
            for changed in tamper(back.recv(65535)):
                front.sendto(changed, sender)

    between = threading.Thread(target=pass_on)
    between.start()
    try:
        yield {**served.place, "udp_port": front.getsockname()[1]}
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", front.getsockname())
        between.join()
        front.close()
        back.close()


def test_altered_answers_are_never_success(served):
    def alter_the_end(datagram: bytes) -> list[bytes]:
        return [datagram[:-1] + bytes([datagram[-1] ^ 1])]

    with relay(served, alter_the_end) as place:
        result = poe_port(place, V3, ports=[1], state="on", request_timeout=0.3, request_retries=1)
    assert "no answer" in one_line(result)
    assert served.powered == []


def test_answers_that_are_played_again_do_not_confuse(served):
    heard: list[bytes] = []

    def play_again(datagram: bytes) -> list[bytes]:
        heard.append(datagram)
        return [*heard, *heard]

    with relay(served, play_again) as place:
        result = poe_port(place, V3, ports=[1], state="on")
    assert result["after"][0]["status"] == "deliveringPower"
