"""`python -m studies.rollout_variance`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.rollout_variance")
