"""NVIDIA's service by which processes share a GPU."""

from __future__ import annotations

import os

from i4d_bench.jobs import mps


def test_without_the_service_processes_take_turns_and_the_log_says_so(monkeypatch, capsys):
    monkeypatch.setattr(mps, "CONTROL", "no-such-control")
    monkeypatch.delenv(mps.PIPE, raising=False)
    with mps.shared(3):
        assert mps.PIPE not in os.environ
    assert "without MPS: there is no no-such-control here" in capsys.readouterr().out
    with mps.shared(1):
        pass
    assert not capsys.readouterr().out
    monkeypatch.setenv(mps.PIPE, "/somewhere")
    with mps.shared(3):
        assert os.environ[mps.PIPE] == "/somewhere"
    assert "daemon in /somewhere" in capsys.readouterr().out


def test_a_daemon_is_started_for_the_call_and_stopped_after_it(monkeypatch, tmp_path, capsys):
    control = tmp_path / "control"
    control.write_text(f'#!/bin/sh\necho "$1$(cat)" >> {tmp_path}/said\n', encoding="utf-8")
    control.chmod(0o755)
    monkeypatch.setattr(mps, "CONTROL", str(control))
    monkeypatch.delenv(mps.PIPE, raising=False)
    with mps.shared(2):
        assert os.path.isdir(os.environ[mps.PIPE])
    assert mps.PIPE not in os.environ and (tmp_path / "said").read_text().split() == ["-d", "quit"]
    assert "through MPS" in capsys.readouterr().out
