"""From noise to trajectories, and from trajectories to returns.

Reading order: rollout, passage, relay, outcome, stepping.
"""
