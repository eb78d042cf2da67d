"""`python -m gradlab`: the same as the command `gradlab`."""

from gradlab.commands.console import main

if __name__ == "__main__":
    main()
