"""Errors that several packages raise and catch."""


class Unsupported(ValueError):
    """A method cannot train a model; the message is the reason."""
