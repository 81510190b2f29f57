"""`python -m capray`: the command line."""

from capray.cli import main

main()
