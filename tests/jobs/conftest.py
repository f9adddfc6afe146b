"""What tests of jobs share: a machine without a GPU."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
