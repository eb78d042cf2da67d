"""`python -m studies.parameter_residual`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.parameter_residual")
