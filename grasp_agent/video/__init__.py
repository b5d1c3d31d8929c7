"""Recording and drawing."""
