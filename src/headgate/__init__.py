"""headgate shares a fixed CPU budget among machine-learning inference pipelines."""

from importlib.metadata import version

__version__ = version("headgate")
