"""`python -m headgate` is the command `headgate`."""

from headgate.controller.cli import main

main()
