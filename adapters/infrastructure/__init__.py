"""Node providers: where machines come from. Each keeps the contract of `core/providers.py`."""
