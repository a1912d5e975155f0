"""The loop and the only clock: observe, decide, actuate, verify; and the command line."""
