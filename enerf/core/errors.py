"""Exceptions for the user's mistakes and for values that are not finite."""


class InputError(Exception):
    """A user's mistake, told in one sentence: the file or option, what was found, what was expected."""


class NotFinite(Exception):
    """Training met a value that is not finite; says the step and what it was."""
