"""Routes through replayed states."""
