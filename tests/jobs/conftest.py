"""The smoke preset's world, rendered once for all tests of jobs."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The cache that holds it, on a machine without a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("I4D_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
