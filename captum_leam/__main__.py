"""``python -m captum_leam``: the command line."""

from captum_leam.cli import main

main()
