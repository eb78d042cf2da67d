"""`python -m studies.loss_landscape`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.loss_landscape")
