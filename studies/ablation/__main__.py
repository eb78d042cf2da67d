"""`python -m studies.ablation`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.ablation")
