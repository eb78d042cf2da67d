"""Policies, and how their parameters get per-sample gradients from recorded calls.

A policy is a network with a Gaussian head; a pull makes gradients of the cotangents of its calls.
Reading order: networks, head, policy, gaussian; perceptron, composed; factors, products, pulls.
"""
