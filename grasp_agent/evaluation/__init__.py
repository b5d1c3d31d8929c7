"""Seeded rollouts, success intervals, comparisons, reports."""
