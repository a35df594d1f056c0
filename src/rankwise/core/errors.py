"""Errors that several packages raise and catch."""


class Unsupported(ValueError):
    """A method cannot train a model; the message is the reason."""


class BrokenModule(ValueError):
    """The file of a method or optimizer cannot be imported; the message says which and why."""
