"""Linear algebra that planners share."""
