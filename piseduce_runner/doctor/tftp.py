"""A TFTP client that reads one small file, as a node's firmware does: RFC 1350, mode octet."""

import socket
import struct
import time

_READ, _DATA, _ACK, _ERROR = 1, 3, 4, 5
_BLOCK = 512
_LARGEST = 64 * 1024


class TftpError(Exception):
    """The server's own words: it is there, but does not give the file."""


class TftpSilence(Exception):
    """No answer; the message says what is known of it."""


def read_file(address: str, name: str, *, port: int = 69, seconds: float = 4.0) -> bytes:
    """The file `name` of the server at the IPv4 `address`, within `seconds`.

    Raises TftpError, or TftpSilence.
    """
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        request = struct.pack("!H", _READ) + name.encode() + b"\0octet\0"
        # The answers come from a port of their own (RFC 1350, 4): no connect() before the first.
        packet, peer = _ask(client, request, (address, port), end)
        client.connect(peer)
        content, number = b"", 1
        while True:
            kind, what = struct.unpack("!HH", packet[:4])
            if kind == _ERROR:
                raise TftpError(packet[4:].rstrip(b"\0").decode("utf-8", "replace") or f"{what}")
            if kind == _DATA and what == number & 0xFFFF:
                content += packet[4:]
                client.send(struct.pack("!HH", _ACK, what))
                if len(packet) < 4 + _BLOCK:
                    return content
                number += 1
            if len(content) > _LARGEST:
                raise TftpError(f"{name} has more than {_LARGEST} bytes: it is not our file")
            packet = _receive(client, end)[0]


def _ask(client: socket.socket, request: bytes, server: tuple[str, int], end: float):
    """Send the request, each second anew, until something comes back from that address."""
    while time.monotonic() < end:
        try:
            client.sendto(request, server)
            packet, peer = _receive(client, min(end, time.monotonic() + 1))
        except TftpSilence:
            continue
        except OSError as error:
            raise TftpSilence(str(error)) from error
        if peer[0] == server[0]:
            return packet, peer
    raise TftpSilence("no answer")


def _receive(client: socket.socket, end: float) -> tuple[bytes, tuple[str, int]]:
    while (left := end - time.monotonic()) > 0:
        client.settimeout(left)
        try:
            packet, peer = client.recvfrom(65535)
        except TimeoutError:
            break
        except OSError as error:
            raise TftpSilence(str(error)) from error
        if len(packet) >= 4:
            return packet, peer
    raise TftpSilence("no answer")
