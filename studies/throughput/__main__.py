"""`python -m studies.throughput`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.throughput")
