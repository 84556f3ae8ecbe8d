"""Progress datagrams: those of our nodes are taken, all else is passed over."""

import contextlib
import json
import queue
import socket

import pytest

from piseduce_runner.progress import ProgressListener
from piseduce_runner.runs import Progressed


@pytest.fixture
def listener():
    events = queue.SimpleQueue()
    made = ProgressListener("127.0.0.1", ["node-1", "node-2"], events.put)
    yield made, events
    made.close()


def send(target, payload):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(payload, (target["address"], target["port"]))


def message(target, **changes):
    return json.dumps({"token": target["token"], "node": "node-1", "percent": 7} | changes).encode()


def target(listener):
    return listener.target("node-1")


def test_a_datagram_with_the_token_is_reported(listener):
    made, events = listener
    send(target(made), message(target(made)))
    assert events.get(timeout=10) == Progressed("node-1", 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "guessed"},
        {"token": 7},
        {"token": "caf\u00e9"},
        {"token": "\ud800"},
        {"node": "node-2"},
        {"node": "node-3"},
        {"node": {}},
        {"percent": 101},
        {"percent": "7"},
        {"node": 1},
    ],
)
def test_a_datagram_that_is_not_right_is_passed_over(listener, changes):
    made, events = listener
    send(target(made), message(target(made), **changes))
    send(target(made), message(target(made), percent=99))
    assert events.get(timeout=10) == Progressed("node-1", 99)
    assert events.empty()


@pytest.mark.parametrize(
    "payload", [b"", b"\xff\xfe", b"[]", b"7", b'{"node": "n"}', b"x" * 5000, b"[" * 1024]
)
def test_rubbish_is_passed_over(listener, payload):
    made, events = listener
    send(target(made), payload)
    send(target(made), message(target(made)))
    assert events.get(timeout=10) == Progressed("node-1", 7)


def test_a_rate_comes_along_and_one_that_no_card_has_does_not(listener):
    made, events = listener
    for percent, rate in ((1, 9_000_000), (100, -1)):
        payload = json.loads(message(target(made), percent=percent)) | {"rate": rate}
        send(target(made), json.dumps(payload).encode())
        told = events.get(timeout=10)
        assert told == Progressed("node-1", percent, rate if rate > 0 else None)


def test_an_address_that_is_not_ours_is_an_os_error():
    with pytest.raises(OSError):
        ProgressListener("192.0.2.1", ["node-1"], print)


def test_a_flood_of_datagrams_is_no_flood_of_events(listener):
    made, events = listener
    for number in range(500):
        send(target(made), message(target(made), percent=number % 100))
    received = []
    # A full socket drops datagrams: the last one is sent until it has come through.
    for _ in range(100):
        send(target(made), message(target(made), percent=100))
        with contextlib.suppress(queue.Empty):
            while not received or received[-1].percent != 100:
                received.append(events.get(timeout=0.1))
            break
    assert received[-1].percent == 100
    assert len(received) < 50
