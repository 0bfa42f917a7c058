"""`python -m koura` is the command `koura`."""

from koura.cli.main import main

main()
