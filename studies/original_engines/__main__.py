"""`python -m studies.original_engines`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.original_engines")
