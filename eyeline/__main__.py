"""`python -m eyeline`: the command line, also where its script is not on the path."""

from eyeline.cli import main

main(prog_name="eyeline")
