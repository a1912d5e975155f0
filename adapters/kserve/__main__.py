"""`python -m headgate.adapters.kserve` is `headgate kserve`: a KServe model server with headgate's engine inside."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    # The command line finds the engine and the plug-ins, which adapters do not import.
    sys.argv.insert(1, "kserve")
    runpy.run_module("headgate", run_name="__main__")
