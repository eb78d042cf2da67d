"""From noise to trajectories, and from trajectories to returns.

Reading order: rollout, transition, relay, outcome, stepping.
"""
