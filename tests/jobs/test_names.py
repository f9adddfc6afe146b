"""Names of folders."""

from __future__ import annotations

import dataclasses

from i4d_bench.config import presets
from i4d_bench.config.override import override
from i4d_bench.jobs.initial import label
from i4d_bench.jobs.names import folder_name


def test_a_chain_of_starts_has_a_short_name():
    name = label(["runs/world"])
    assert name == "from-world"
    for _ in range(20):
        name = label([f"runs/gpu-h100-clips-{name}"])
    assert len(name) < 120 and label(["a", "b"]) == label(["b", "a"]) != label(["a"])


def test_changed_settings_get_a_folder_of_their_own():
    e = presets.smoke()
    names = [folder_name(override(e, s)) for s in ([], ["train.lr=3e-4"], ["overrides.local_adaln.hidden=64"])]
    assert len(set(names)) == 3 and all(n.startswith(names[0]) for n in names)
    assert folder_name(dataclasses.replace(e, seed=3, designs=("static",))) == names[0], "seeds share a table"
