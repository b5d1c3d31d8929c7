"""Updates of GRASP's lifted problem."""
