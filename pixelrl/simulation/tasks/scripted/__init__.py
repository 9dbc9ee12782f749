"""Scripted policies that collect data."""
