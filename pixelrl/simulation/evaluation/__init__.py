"""Policies tried in simulation, and how sure the figures are."""
