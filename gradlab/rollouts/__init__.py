"""From noise to trajectories, and from trajectories to returns.

Reading order: rollout, outcome, stepping.
"""
