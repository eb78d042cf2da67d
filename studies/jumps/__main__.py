"""`python -m studies.jumps`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.jumps")
