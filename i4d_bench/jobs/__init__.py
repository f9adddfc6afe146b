"""The suite's jobs: one experiment, one speed run."""
