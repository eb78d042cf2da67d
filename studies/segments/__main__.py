"""`python -m studies.segments`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.segments")
