"""Other libraries' planners on the same frozen models."""
