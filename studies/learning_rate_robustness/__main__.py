"""`python -m studies.learning_rate_robustness`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.learning_rate_robustness")
