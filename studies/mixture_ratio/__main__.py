"""`python -m studies.mixture_ratio`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.mixture_ratio")
