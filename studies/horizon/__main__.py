"""`python -m studies.horizon`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.horizon")
