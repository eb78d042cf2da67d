"""Training a policy by any estimator: segments of episodes, a critic that follows, an optimiser."""
