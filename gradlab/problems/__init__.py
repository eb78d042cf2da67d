"""A problem: simulator, task, policy and events in one value; and every problem that has a name.

Reading order: problem, registry, then known_answers, contact_toys, flights or runners.
"""
