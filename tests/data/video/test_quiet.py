"""MediaPipe's native code is not heard between our sentences; what it says of a failure is."""

from __future__ import annotations

import os

import pytest

from i4d_bench.data.video import quiet
from i4d_bench.types import UserError


def detector(says: str, fails: bool = False):
    def opened(model, most):
        os.write(2, says.encode())  # as native code does
        if fails:
            raise UserError("damaged")
        return model, most

    return opened


@pytest.mark.unchecked  # the stand-in is no Landmarker
def test_what_native_code_writes_while_it_starts_is_not_heard(monkeypatch, capfd):
    monkeypatch.setattr(quiet, "Landmarker", detector("W0000 feedback manager\n"))
    assert quiet.landmarker("model", most=2) == ("model", 2)
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


def test_where_it_fails_it_is(monkeypatch, capfd):
    monkeypatch.setattr(quiet, "Landmarker", detector("E0000 no such op\n", fails=True))
    with pytest.raises(UserError, match="damaged"):
        quiet.landmarker("model")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "E0000 no such op\nlater\n"


@pytest.mark.assets
def test_mediapipe_itself_is_not_heard(capfd):
    quiet.landmarker().close()
    assert capfd.readouterr().err == ""
