"""`python -m studies.estimator_in_training`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.estimator_in_training")
