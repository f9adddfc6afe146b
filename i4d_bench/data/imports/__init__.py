"""Data that people hold already, tracked by other tools, as data sets of ours."""
