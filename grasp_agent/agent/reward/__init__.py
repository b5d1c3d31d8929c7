"""Agents that plan for rewards."""
