"""`python -m studies.critic_quality`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.critic_quality")
