"""LEARNER_TAP: what it writes is in the clear, so it says so, and the files are for one user."""

from __future__ import annotations

from learner_jax.engines.tap import tap_to
from learner_jax.protocol import messages as m
from learner_jax.protocol.zipped import zipped


def test_a_tap_that_is_on_says_so_in_one_loud_line(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "taps"
    monkeypatch.setenv("LEARNER_TAP", str(folder))
    tap = tap_to("north")
    assert tap is not None
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith("WARNING: LEARNER_TAP is set, so every message of north is written IN THE CLEAR to ")
    tap("to", "coordinator", b"header", b"payload")
    tap("from", "coordinator", b"head", memoryview(b"more"))
    (file,) = folder.iterdir()
    assert str(file) in told.err
    assert file.read_bytes() == b"\nto coordinator 6 7\nheaderpayload\nfrom coordinator 4 4\nheadmore"
    assert (file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert capsys.readouterr().err == ""  # once, not once a message


def test_no_tap_is_silent(monkeypatch, capsys):
    monkeypatch.delenv("LEARNER_TAP", raising=False)
    assert tap_to("north") is None
    assert capsys.readouterr().err == ""


def test_a_compressed_chunk_is_written_as_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LEARNER_TAP", str(tmp_path))
    tap = tap_to("north")
    assert tap is not None
    header = m.encode(m.Chunk("s", "a" * 64, 0, True, b"", "zstd"))
    tap("out", "coordinator", header, zipped(b"Mrs Smith, 1948-03-01 " * 99))
    (file,) = tmp_path.iterdir()
    assert file.read_bytes().count(b"Mrs Smith, 1948-03-01 ") == 99
    tap("out", "coordinator", header, b"no zstd")
    assert file.read_bytes().endswith(b"no zstd")
