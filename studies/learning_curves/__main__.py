"""`python -m studies.learning_curves`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.learning_curves")
