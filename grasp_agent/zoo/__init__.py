"""Bundled agents and baselines, and Stable-Baselines3's algorithms."""
