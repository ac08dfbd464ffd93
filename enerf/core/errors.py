"""Exceptions for invalid user input and for non-finite values."""


class InputError(Exception):
    """Invalid user input. The message is one sentence: the file or option, what was found, what was expected."""


class NotFinite(Exception):
    """A loss, gradient or weight became NaN or infinite; the message names the step and the quantity."""
