"""card_write: deadlines, kills and hang-ups; nothing goes on, nothing half is taken for whole."""

import json
import os
import select
import signal
from pathlib import Path

from .image import assert_holds_image


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_end(pidfd):
    """Wait until the process behind a pidfd has ended; it is not our child, so no exit status."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(20_000), "a child outlived its module"
    os.close(pidfd)


def test_stalled_server_ends_at_the_deadline_with_all_children(
    card, start_module, server, copy_options
):
    server.stall_after = 1000
    copy_options["timeout"] = 3
    module = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
    children = [os.pidfd_open(child) for child in children_of(module.pid)]
    assert len(children) == 2
    output = json.loads(module.communicate(timeout=30)[0])
    assert "writing the card took longer than 3 s (0 % were done)" in output["msg"]
    for child in children:
        wait_for_end(child)


def test_killed_module_leaves_no_child_and_no_lock(
    card, start_module, run_module, server, copy_options
):
    server.stall_after = 1000
    module = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
    children = [os.pidfd_open(child) for child in children_of(module.pid)]
    module.kill()
    for child in children:
        wait_for_end(child)
    server.stall_after = None
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message


def test_module_ends_when_the_manager_hangs_up(card, start_module, server, copy_options):
    server.stall_after = 1000
    module = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
    children = [os.pidfd_open(child) for child in children_of(module.pid)]
    module.stdout.close()
    module.wait(timeout=30)
    for child in children:
        wait_for_end(child)


def test_interrupted_copy_has_no_partitions_and_the_next_one_is_complete(
    card, start_module, run_module, server, copy_options, published
):
    run_module("card_write", device=card.device, **copy_options)
    server.stall_after = (published / "debian" / "image.img.zst").stat().st_size // 2
    module = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
    module.send_signal(signal.SIGKILL)
    module.wait()
    assert card.read(0, 512) == bytes(512)
    server.stall_after = None
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message
    assert_holds_image(card, published)
