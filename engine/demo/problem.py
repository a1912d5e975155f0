"""What keeps the demo from running, as one type that the command line turns into a message."""


class ProblemError(RuntimeError):
    """A part of the demo cannot run; the message says which and why."""
