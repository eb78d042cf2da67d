"""`python -m studies.bias_vs_relaxation`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.bias_vs_relaxation")
