"""Per-sample gradients of a surrogate, and k estimators measured on the same episodes.

Reading order: engines, samples, sampling, measurement.
"""
