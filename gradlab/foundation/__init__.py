"""What everything else stands on, and what knows no problem: errors, checked arguments, names,
files, constant tensors, noise and the moment between two steps.
"""
