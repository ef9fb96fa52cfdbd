"""The command line: one application for both loops, which takes the backend as a parameter."""
