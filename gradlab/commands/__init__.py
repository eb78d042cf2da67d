"""The command `gradlab`: studies, comparisons on a problem of yours, and a check of the machine."""
