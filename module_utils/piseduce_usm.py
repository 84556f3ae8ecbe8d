"""SNMPv3 messages of a manager: the User-based Security Model, RFC 3414 (format: RFC 3412).

The message syntax and the ciphers are pysnmp's; this is the order of operations for the side that
asks (the "non-authoritative engine"): find the agent's engine and clock, sign and encrypt what goes
out, check what comes in.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from ansible.module_utils.piseduce_snmp import (
    NotOurs,
    SecurityRefused,
    SendAgain,
    decoded,
    oid_text,
)
from pyasn1.codec.ber import encoder
from pyasn1.type.univ import OctetString
from pysnmp.proto import rfc1905
from pysnmp.proto.api import v2c
from pysnmp.proto.error import StatusInformation
from pysnmp.proto.mpmod.rfc3412 import ScopedPDU, SNMPv3Message
from pysnmp.proto.secmod.rfc3414.auth.hmacmd5 import HmacMd5
from pysnmp.proto.secmod.rfc3414.auth.hmacsha import HmacSha
from pysnmp.proto.secmod.rfc3414.priv.des import Des
from pysnmp.proto.secmod.rfc3414.service import UsmSecurityParameters
from pysnmp.proto.secmod.rfc3826.priv.aes import Aes
from pysnmp.proto.secmod.rfc7860.auth.hmacsha2 import HmacSha2

# Name: hash, bytes of the digest that are sent, pysnmp's identifier (RFC 3414, 6-7; RFC 7860, 4).
AUTH_PROTOCOLS = {
    "md5": ("md5", 12, HmacMd5.SERVICE_ID),
    "sha": ("sha1", 12, HmacSha.SERVICE_ID),
    "sha224": ("sha224", 16, HmacSha2.SHA224_SERVICE_ID),
    "sha256": ("sha256", 24, HmacSha2.SHA256_SERVICE_ID),
    "sha384": ("sha384", 32, HmacSha2.SAH384_SERVICE_ID),
    "sha512": ("sha512", 48, HmacSha2.SHA512_SERVICE_ID),
}
# Name: pysnmp's cipher, bits of its salt (RFC 3414, 8; RFC 3826).
PRIV_PROTOCOLS = {"des": (Des, 32), "aes": (Aes, 64)}

AUTH, PRIV, REPORTABLE = 1, 2, 4  # msgFlags, RFC 3412, 6.4
USM = 3  # msgSecurityModel
TIME_WINDOW = 150  # seconds, RFC 3414, 2.2.3
MESSAGE_SIZE = 65507

_USM_STATS = (1, 3, 6, 1, 6, 3, 15, 1, 1)
UNSUPPORTED_LEVEL = (*_USM_STATS, 1, 0)
NOT_IN_TIME_WINDOW = (*_USM_STATS, 2, 0)
UNKNOWN_USER = (*_USM_STATS, 3, 0)
UNKNOWN_ENGINE = (*_USM_STATS, 4, 0)
WRONG_DIGEST = (*_USM_STATS, 5, 0)
DECRYPTION_ERROR = (*_USM_STATS, 6, 0)


class Usm:
    """Messages of SNMPv3 for one user of one agent.

    No auth_password: noAuthNoPriv; no priv_password: authNoPriv. ValueError: a password is shorter
    than 8 characters (RFC 3414, 11.2), or privacy is asked for without authentication.
    """

    def __init__(self, user, auth_protocol, auth_password, priv_protocol, priv_password):
        if priv_password and not auth_password:
            raise ValueError("SNMPv3 privacy needs authentication: auth_password is missing")
        for name, password in (("auth", auth_password), ("priv", priv_password)):
            if password and len(password.encode()) < 8:
                raise ValueError(f"{name}_password has less than 8 characters (RFC 3414, 11.2)")
        self._user = user
        self._hash, self._digest_size, self._auth_id = AUTH_PROTOCOLS[auth_protocol]
        cipher, salt_bits = PRIV_PROTOCOLS[priv_protocol]
        self._cipher = cipher()
        # pysnmp draws the first salt when it is imported. Processes that are forked afterwards
        # would share it, and encrypt different requests with the same key stream.
        self._cipher.local_int = secrets.randbits(salt_bits)
        self._auth_password = auth_password
        self._priv_password = priv_password
        self._flags = (AUTH if auth_password else 0) | (PRIV if priv_password else 0)
        self.who = f"the SNMPv3 user {user!r}"
        self.silence = "it is off or unreachable, or SNMPv3 is disabled on it"
        self._engine = b""
        self._auth_key = b""
        self._priv_key = OctetString(b"")
        self._clock = (0, 0.0)  # the agent's boots, and its time 0 in our monotonic time
        self._clock_is_proven = False
        self._pending = set()  # msgIDs of the requests that are under way
        self._lessons = set()  # what reports have taught us since the last answer

    @property
    def has_met_agent(self):
        """Whether an agent has introduced itself, which it does to anybody."""
        return bool(self._engine)

    # Going out (RFC 3414, 3.1)

    def encode(self, pdu):
        if not self._engine:  # discovery, RFC 3414, 4: an empty request, answered by a report
            request = v2c.GetRequestPDU()
            v2c.apiPDU.set_defaults(request)
            return self._message(request, b"", 0, b"", (0, 0))
        return self._message(
            pdu, self._engine, self._flags, self._user.encode(), self._agent_time()
        )

    def _message(self, pdu, engine, flags, user, clock):
        number = secrets.randbits(31)
        self._pending.add(number)
        scoped = ScopedPDU()
        scoped["contextEngineId"] = engine
        scoped["contextName"] = b""
        scoped["data"].setComponentByType(pdu.tagSet, pdu)
        message = SNMPv3Message()
        message["msgVersion"] = 3
        header = message["msgGlobalData"]
        header["msgID"] = number
        header["msgMaxSize"] = MESSAGE_SIZE
        header["msgFlags"] = bytes([flags | REPORTABLE])
        header["msgSecurityModel"] = USM
        parameters = UsmSecurityParameters()
        parameters["msgAuthoritativeEngineId"] = engine
        parameters["msgAuthoritativeEngineBoots"], parameters["msgAuthoritativeEngineTime"] = clock
        parameters["msgUserName"] = user
        parameters["msgAuthenticationParameters"] = b""
        parameters["msgPrivacyParameters"] = b""
        if flags & PRIV:
            secret, salt = self._encrypt(encoder.encode(scoped), clock)
            parameters["msgPrivacyParameters"] = salt
            message["msgData"]["encryptedPDU"] = secret
        else:
            message["msgData"]["plaintext"] = scoped
        if flags & AUTH:  # the digest is that of the message with zeros in its place
            parameters["msgAuthenticationParameters"] = bytes(self._digest_size)
            message["msgSecurityParameters"] = encoder.encode(parameters)
            digest = self._digest(encoder.encode(message))
            parameters["msgAuthenticationParameters"] = digest
        message["msgSecurityParameters"] = encoder.encode(parameters)
        return encoder.encode(message)

    def _encrypt(self, plain, clock):
        try:
            return self._cipher.encrypt_data(self._priv_key, (*clock, None), plain)
        except StatusInformation as problem:
            raise SecurityRefused(
                "SNMPv3 privacy needs the Python library `cryptography` with this cipher on the "
                f"manager: {problem}"
            ) from problem

    # Coming in (RFC 3414, 3.2)

    def decode(self, datagram):
        message = decoded(datagram, SNMPv3Message())
        parameters = decoded(message["msgSecurityParameters"], UsmSecurityParameters())
        number = int(message["msgGlobalData"]["msgID"])
        if number not in self._pending:
            raise NotOurs
        flags = bytes(message["msgGlobalData"]["msgFlags"])[0]
        authentic = bool(flags & AUTH) and self._check(datagram, parameters)
        scoped = self._scoped_pdu(message, parameters, flags)
        pdu = scoped["data"].getComponent()
        if pdu.tagSet == rfc1905.ReportPDU.tagSet:
            self._learn(parameters, pdu, authentic)
        if (flags & (AUTH | PRIV)) != self._flags:
            raise NotOurs  # an answer that is less protected than the request is no answer
        self._check_context(scoped, parameters)
        if authentic:
            self._check_time(parameters)
        self._lessons.clear()
        self._pending.clear()
        return pdu

    def _check(self, datagram, parameters):
        """True: the digest is right (RFC 3414, 6.3.2). NotOurs: it is not."""
        digest = bytes(parameters["msgAuthenticationParameters"])
        place = datagram.find(digest)
        if not self._auth_key or len(digest) != self._digest_size or place < 0:
            raise NotOurs
        blank = datagram[:place] + bytes(len(digest)) + datagram[place + len(digest) :]
        if not hmac.compare_digest(self._digest(blank), digest):
            raise NotOurs
        return True

    def _scoped_pdu(self, message, parameters, flags):
        if not flags & PRIV:
            data = message["msgData"]
            if data.getName() != "plaintext":
                raise NotOurs
            return data["plaintext"]
        if not flags & AUTH or not self._priv_key or message["msgData"].getName() == "plaintext":
            raise NotOurs
        salt = (
            int(parameters["msgAuthoritativeEngineBoots"]),
            int(parameters["msgAuthoritativeEngineTime"]),
            parameters["msgPrivacyParameters"],
        )
        try:
            plain = self._cipher.decrypt_data(
                self._priv_key, salt, message["msgData"]["encryptedPDU"]
            )
        except (StatusInformation, ValueError) as problem:
            raise NotOurs from problem
        return decoded(plain, ScopedPDU())

    def _check_context(self, scoped, parameters):
        engine = bytes(parameters["msgAuthoritativeEngineId"])
        if engine != self._engine or bytes(parameters["msgUserName"]) != self._user.encode():
            raise NotOurs
        if bytes(scoped["contextEngineId"]) != self._engine:
            raise NotOurs

    def _check_time(self, parameters):
        """Refuses what was recorded earlier and is played again (RFC 3414, 3.2, 7b)."""
        boots = int(parameters["msgAuthoritativeEngineBoots"])
        seconds = int(parameters["msgAuthoritativeEngineTime"])
        our_boots, our_seconds = self._agent_time()
        if self._clock_is_proven and (
            boots < our_boots or (boots == our_boots and seconds < our_seconds - TIME_WINDOW)
        ):
            raise NotOurs
        if not self._clock_is_proven or (boots, seconds) > (our_boots, our_seconds):
            self._clock = (boots, time.monotonic() - seconds)
        self._clock_is_proven = True

    # Reports: the agent says what is wrong with our message (RFC 3414, 3.2 and 4)

    def _learn(self, parameters, report, authentic):
        """Raises SendAgain if the report helped, else SecurityRefused."""
        varbinds = v2c.apiPDU.get_varbinds(report)
        cause = tuple(varbinds[0][0]) if varbinds else ()
        if cause in (UNKNOWN_ENGINE, NOT_IN_TIME_WINDOW) and cause not in self._lessons:
            if cause == UNKNOWN_ENGINE:
                self._meet(bytes(parameters["msgAuthoritativeEngineId"]))
            elif self._flags & AUTH and not authentic:
                raise NotOurs  # anybody could set our clock
            self._lessons.add(cause)
            self._pending.clear()  # what was sent without the lesson is not to be answered
            boots = int(parameters["msgAuthoritativeEngineBoots"])
            seconds = int(parameters["msgAuthoritativeEngineTime"])
            self._clock = (boots, time.monotonic() - seconds)
            self._clock_is_proven = authentic
            raise SendAgain
        raise SecurityRefused(self._explain(cause))

    def _meet(self, engine):
        """Takes an engine's identifier, and localizes the keys to it (RFC 3414, 2.6)."""
        if not 5 <= len(engine) <= 32:
            raise NotOurs
        self._engine = engine
        self.silence = (
            "it introduced itself and then did not answer the user's request: most likely the "
            "priv_password or the priv_protocol is wrong, or it went down meanwhile"
        )
        if self._auth_password:
            master = _password_to_key(self._auth_password, self._hash)
            self._auth_key = _digest_of(self._hash, master + engine + master)
        if self._priv_password:
            master = _password_to_key(self._priv_password, self._hash)
            self._priv_key = self._cipher.localize_key(
                self._auth_id, OctetString(master), OctetString(engine)
            )

    def _explain(self, cause):
        user = self._user
        level = {0: "noAuthNoPriv", AUTH: "authNoPriv", AUTH | PRIV: "authPriv"}[self._flags]
        texts = {
            UNSUPPORTED_LEVEL: f"the switch does not admit the SNMPv3 user {user!r} with {level}: "
            "compare the user's security level on the switch with auth_password and priv_password",
            NOT_IN_TIME_WINDOW: "the switch's SNMPv3 clock and boot counter do not fit together "
            "(notInTimeWindow twice): restart its SNMP agent",
            UNKNOWN_USER: f"the switch knows no SNMPv3 user {user!r}: check user, or create it "
            "on the switch",
            UNKNOWN_ENGINE: "the switch changes its SNMP engine id from one answer to the next: "
            "two devices may share its address",
            WRONG_DIGEST: f"the switch refuses the SNMPv3 user {user!r} (wrong digest): "
            "auth_password or auth_protocol is wrong",
            DECRYPTION_ERROR: f"the switch cannot decrypt what the SNMPv3 user {user!r} sends: "
            "priv_password or priv_protocol is wrong",
        }
        return texts.get(cause, f"the switch reports an SNMPv3 problem: {oid_text(cause)}")

    # Keys and time

    def _digest(self, message):
        return hmac.new(self._auth_key, message, self._hash).digest()[: self._digest_size]

    def _agent_time(self):
        boots, zero = self._clock
        return boots, max(0, int(time.monotonic() - zero))


def _digest_of(name, data):
    return hashlib.new(name, data, usedforsecurity=False).digest()


def _password_to_key(password, hash_name):
    """RFC 3414, A.2: the hash of the password, repeated to 1 MiB."""
    secret = password.encode()
    return _digest_of(hash_name, (secret * (1048576 // len(secret) + 1))[:1048576])
