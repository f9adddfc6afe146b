"""Imported by the process that others are forked off: what each of them would reckon anew."""

from i4d_bench import source
from i4d_bench.jobs.plan import ENCODER, READER, SCORING, TRAINING

for entries in (TRAINING, SCORING, READER, ENCODER):
    source.digest(*entries)
