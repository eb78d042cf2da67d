"""`python -m studies.leaderboard`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.leaderboard")
