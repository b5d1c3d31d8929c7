"""One-step dynamics models."""
