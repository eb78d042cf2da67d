"""`python -m studies.apg_suite`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.apg_suite")
