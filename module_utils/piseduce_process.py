# SPDX-License-Identifier: MIT
"""Bounded work on a node: a deadline for the module, child processes that cannot outlive it.

Ansible ends its SSH client when a run is over its time, and the command on the node goes on. So the
modules that work on the card carry their own deadline, and end as well when nobody listens to them
any more: whoever comes next must find the card free.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import time

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """The work cannot be done; the message names the cause and, where there is one, a way out."""


class Hopeless(Failure):
    """As :class:`Failure`, and neither a retry nor a power cycle can help: somebody has to change
    the card, the switch or the site's settings first. The result says so: ``hopeless: true``."""


class Watch:
    """A deadline for the whole module, checked once per second by SIGALRM.

    :param seconds: how long the work inside ``with Watch(...)`` may last
    :param doing: what to call the work in the message, such as ``writing the card``

    Inside the ``with`` block, work that lasts too long ends with :class:`Failure`, whatever it
    waits for: the signal interrupts every system call but those in which the kernel waits for a
    device. The same happens when the reader of our standard output has gone away, which is how the
    end of the SSH session shows (poll(2): POLLERR on a pipe, POLLHUP on a socket).

    ``progress`` may be set to a :class:`Progress`: it is sent once per second, and the message of
    an overdue work says how far it came.
    """

    def __init__(self, seconds, doing):
        self.doing = doing
        self.progress = None
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._poll = select.poll()
        self._poll.register(1, 0)

    def __enter__(self):
        if self._seconds <= 0:
            raise Failure(f"no time is left for {self.doing}: timeout is {self._seconds} s")
        signal.signal(signal.SIGALRM, self._alarm)
        signal.setitimer(signal.ITIMER_REAL, min(1.0, self._seconds), 1.0)
        return self

    def __exit__(self, *_exception):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def remaining(self):
        """Seconds until the deadline, zero when it has passed."""
        return max(0.0, self._end - time.monotonic())

    def _alarm(self, _signal, _frame):
        if time.monotonic() >= self._end:
            done = f" ({self.progress.percent()} % were done)" if self.progress else ""
            raise Failure(f"{self.doing} took longer than {self._seconds} s{done}")
        if self._poll.poll(0):
            raise Failure(f"the manager hung up during {self.doing}")
        if self.progress:
            self.progress.tell()


class Stopwatch:
    """How long something took, and how fast it was."""

    def __init__(self):
        self._start = time.monotonic()

    def seconds(self):
        """Seconds since it was made, to the millisecond."""
        return round(time.monotonic() - self._start, 3)

    def rate(self, amount):
        """Amount per second since it was made, as a whole number."""
        return int(amount / max(time.monotonic() - self._start, 0.001))


def _die_with(parent, largest_file):
    """Return a function that ties a new process to its parent's life (prctl(2)), and limits it."""

    def tie():
        if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(125)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return tie


def spawn(command, **options):
    """Start a child that the kernel kills when this process ends, however it ends.

    :param command: list of arguments; no shell
    :param options: as for :class:`subprocess.Popen`; ``largest_file`` is how many bytes a file may
        have that it writes (a pipe is none): who complains without end into a file is killed
    :raises Failure: the program does not exist on this node
    """
    largest_file = options.pop("largest_file", None)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    environment.update(options.pop("env", {}))
    options.setdefault("stdin", subprocess.DEVNULL)
    try:
        # The child does nothing between fork and exec but one system call, so threads do no harm.
        return subprocess.Popen(
            command, env=environment, preexec_fn=_die_with(os.getpid(), largest_file), **options
        )
    except FileNotFoundError as error:
        raise Hopeless(f"{command[0]} is not installed on this node") from error


def kill(*children):
    """Kill and reap children; those that have ended already are only reaped."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    for child in children:
        child.wait()


def run(command, text=None, accept=(0,), what=None):
    """Run a program to its end.

    :param command: list of arguments
    :param text: string for its standard input
    :param accept: exit statuses that are fine
    :param what: what it was to do, for the error message (default: the program's name)
    :returns: ``(exit status, standard output)``, the latter as a string
    :raises Failure: any other exit status, with what the program said
    """
    child = spawn(
        command,
        stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    try:
        output, complaint = child.communicate(text)
    except BaseException:
        kill(child)
        raise
    if child.returncode not in accept:
        said = one_line(complaint) or one_line(output) or "it said nothing"
        raise Failure(f"{what or command[0]} failed ({ending(child.returncode)}): {said}")
    return child.returncode, output


def ending(status):
    """Describe an exit status of :mod:`subprocess`: ``exit status 1``, ``killed by SIGKILL``."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def one_line(text, longest=400):
    """Join what a program said to a single line of bounded length, its end kept."""
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    return line if len(line) <= longest else "..." + line[-longest:]


def guarded(module, work):
    """Run a module's work and report its end to Ansible.

    :param work: function without arguments that returns the module's result as a dict
    """
    try:
        result = work()
    except Failure as failure:
        hopeless = {"hopeless": True} if isinstance(failure, Hopeless) else {}
        module.fail_json(msg=str(failure), **hopeless)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        module.fail_json(msg=f"{where}{error.strerror or error}", errno=error.errno)
    module.exit_json(**result)
