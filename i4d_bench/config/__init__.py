"""What decides a result: the experiment, its presets, ablations and overrides."""
