"""Trains a policy by a named algorithm: `python -m studies.train --algorithm shac --task hovering`.

Not a study with a table: one run, that can be stopped and goes on where it was.
"""
