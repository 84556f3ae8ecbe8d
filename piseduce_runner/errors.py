"""Errors that are shown to people, without a traceback."""


class UserError(Exception):
    """A mistake in what the user gave: one line that says what is wrong, where, and what to do.

    The command line prints it and exits with status 2; nothing was changed.
    """
