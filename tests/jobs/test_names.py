"""Names of folders."""

from __future__ import annotations

import dataclasses

from i4d_bench.config import presets
from i4d_bench.config.override import override
from i4d_bench.jobs.names import folder_name


def test_changed_settings_get_a_folder_of_their_own():
    e = presets.smoke()
    names = [folder_name(override(e, s)) for s in ([], ["train.lr=3e-4"], ["overrides.local_adaln.hidden=64"])]
    assert len(set(names)) == 3 and all(n.startswith(names[0]) for n in names)
    assert folder_name(dataclasses.replace(e, seed=3, designs=("static",))) == names[0], "seeds share a table"
