"""Initial plans and proposals."""
