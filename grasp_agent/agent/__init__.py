"""The agent: `predict`, `learn`, `save`, `load`."""
