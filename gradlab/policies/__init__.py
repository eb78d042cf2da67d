"""Policies, and how their parameters get per-sample gradients from recorded calls.

Reading order: gaussian, factors, products.
"""
