"""`python -m studies.reward_robustness`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.reward_robustness")
