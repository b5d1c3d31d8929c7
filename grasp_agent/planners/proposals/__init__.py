"""Where plans start from."""
