"""The error with which every command of infra/ ends."""


class CommandError(Exception):
    """A command cannot do its work; the message says why and, where possible, what to do."""
