"""Ends that are asked for while a command has something in hand."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def clean_end() -> Iterator[None]:
    """Lets SIGTERM and a lost terminal end the block as Ctrl-C does, so that nothing is left.

    What was ignored before (nohup) stays ignored.
    """

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
