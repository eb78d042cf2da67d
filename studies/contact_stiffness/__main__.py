"""`python -m studies.contact_stiffness`."""

from gradlab.study import cli

if __name__ == "__main__":
    cli("studies.contact_stiffness")
