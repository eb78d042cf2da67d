"""`python -m studies.empirical_bias`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.empirical_bias")
