"""Scores one window of CAN traffic: VGAE, GAT and the baselines they must beat."""
