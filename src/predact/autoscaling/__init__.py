"""Turns load into instances: the simulated cluster, its load, and the policies that scale it."""
