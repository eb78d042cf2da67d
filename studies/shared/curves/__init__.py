"""Trainings by seeds, as cells: what studies of learning curves share.

Reading order: arms, parts, baselines, rows, claims, words, figures. A study of this kind says which
arms (task, algorithm, variant) it trains, how an arm is set up, and what is claimed of them.
"""
