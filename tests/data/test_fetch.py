"""Downloads against a server of our own that breaks off, changes its file, takes no ranges, or sends another file."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import threading
import zipfile

import pytest

from learner_jax.data.fetch import SETS, PublicSet, fetch
from learner_jax.errors import CorruptError, DataError, StorageError

CONTENT = bytes(range(256)) * 4000  # 1 MB


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; the knobs say how badly."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.cut_after: int | None = None
        self.tag = '"one"'
        self.asked: list[str | None] = []
        self.says_length = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/set.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if self.path not in ("/set.bin", "/set.zip"):
            return self.send_error(404, "Not Found")
        start = 0
        wanted = self.headers.get("Range")
        if wanted and server.ranges and self.headers.get("If-Range") == server.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        if server.tag:
            self.send_header("ETag", server.tag)
        if server.says_length:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        stop = len(server.content) if server.cut_after is None else min(start + server.cut_after, len(server.content))
        self.wfile.write(server.content[start:stop])
        return None

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def a_set(server: Server, sha256: str | None = None) -> PublicSet:
    known = hashlib.sha256(CONTENT).hexdigest() if sha256 is None else sha256
    return PublicSet(
        "mine", "A set of mine", server.url, "set.csv", known, "CC BY 4.0", "Me, 2020", "https://example.org"
    )


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_with_progress_and_notice(server, tmp_path):
    seen = []
    got = fetch(a_set(server), tmp_path / "new", lambda done, total: seen.append((done, total)))
    assert got.path.read_bytes() == CONTENT and got.downloaded and not got.pinned
    assert (
        seen[-1] == (len(CONTENT), len(CONTENT))
        and [d for d, _ in seen] == sorted(d for d, _ in seen)
        and len(seen) > 1
    )
    assert "CC BY 4.0" in got.notice and "Me, 2020" in got.notice and "the known one" in got.notice
    assert names(tmp_path / "new") == ["set.csv"]


def test_a_second_time_nothing_is_asked(server, tmp_path):
    fetch(a_set(server), tmp_path)
    again = fetch(a_set(server), tmp_path)
    assert not again.downloaded and len(server.asked) == 1
    again.path.write_bytes(b"someone wrote here")
    assert fetch(a_set(server), tmp_path).path.read_bytes() == CONTENT


def test_a_download_that_broke_off_goes_on(server, tmp_path):
    server.cut_after = 300_000
    for turn in range(1, 4):
        with pytest.raises(DataError, match=r"broke off .*the same command goes on from here"):
            fetch(a_set(server), tmp_path)
        assert (tmp_path / "set.csv.part").stat().st_size == turn * 300_000
        assert not (tmp_path / "set.csv").exists()
    assert fetch(a_set(server), tmp_path).path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert names(tmp_path) == ["set.csv"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.cut_after, server.ranges = 300_000, False
    with pytest.raises(DataError, match="broke off at 300000 of 1024000 bytes"):
        fetch(a_set(server), tmp_path)
    server.cut_after = None
    assert fetch(a_set(server), tmp_path).path.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_patched_together(server, tmp_path):
    server.cut_after = 300_000
    with pytest.raises(DataError):
        fetch(a_set(server, ""), tmp_path)
    server.content, server.tag, server.cut_after = b"another file", '"two"', None
    assert fetch(a_set(server, ""), tmp_path).path.read_bytes() == b"another file"


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_strong_tag_it_starts_again(server, tmp_path, tag):
    server.tag, server.cut_after = tag, 300_000
    with pytest.raises(DataError):
        fetch(a_set(server), tmp_path)
    server.cut_after = None
    assert fetch(a_set(server), tmp_path).path.read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_a_part_that_is_already_whole(server, tmp_path):
    """Killed between the last byte and the check: the server answers 416."""
    (tmp_path / "set.csv.part").write_bytes(CONTENT)
    (tmp_path / "set.csv.part.tag").write_text(server.tag)
    assert fetch(a_set(server), tmp_path).path.read_bytes() == CONTENT


def test_a_server_that_does_not_say_how_long(server, tmp_path):
    server.says_length = False
    seen = []
    assert fetch(a_set(server), tmp_path, lambda *done: seen.append(done)).path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), None)


def test_a_wrong_checksum_throws_the_bytes_away(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(CorruptError, match=r"expected set\.csv with sha256 [0-9a-f]{64} \(known\), got [0-9a-f]{64}"):
        fetch(a_set(server), tmp_path)
    assert names(tmp_path) == []


def test_a_checksum_is_pinned_at_first_use_and_held(server, tmp_path):
    first = fetch(a_set(server, ""), tmp_path)
    assert first.pinned and "this one is pinned for later downloads" in first.notice
    assert json.loads((tmp_path / "set.csv.pin.json").read_text())["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    again = fetch(a_set(server, ""), tmp_path)
    assert not again.downloaded and "pinned at first use" in again.notice
    first.path.unlink()
    server.content = b"another"
    with pytest.raises(CorruptError, match="pinned at first use"):
        fetch(a_set(server, ""), tmp_path)


def zipped(**files: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


@pytest.mark.parametrize("deep", [1, 2])
def test_the_file_inside_the_zip_is_kept_and_checked(server, tmp_path, deep):
    server.content = zipped(**{"folder/set.csv": CONTENT, "folder/readme": b""})
    if deep == 2:
        server.content = zipped(**{"inner.zip": server.content})
    assert fetch(a_set(server), tmp_path).path.read_bytes() == CONTENT
    assert names(tmp_path) == ["set.csv"]


def test_a_zip_without_the_file_or_damaged(server, tmp_path):
    server.content = zipped(other=CONTENT)
    with pytest.raises(CorruptError, match=r"expected a zip that holds set\.csv"):
        fetch(a_set(server), tmp_path)
    whole = bytearray(zipped(**{"set.csv": b"abc" * 1000}))
    whole[45] ^= 0xFF
    server.content = bytes(whole)
    with pytest.raises(CorruptError, match=r"expected a zip that holds set\.csv"):
        fetch(a_set(server), tmp_path)
    server.content = b"<html>We are down for maintenance</html>"
    with pytest.raises(CorruptError, match=r"expected a zip that holds set\.csv"):
        fetch(a_set(server, "")._replace(url=server.url.replace("set.bin", "set.zip")), tmp_path)
    assert names(tmp_path) == []


def test_what_cannot_be_had_is_one_line(server, tmp_path):
    with pytest.raises(DataError, match="expected the file, got HTTP 404 Not Found"):
        fetch(a_set(server)._replace(url=server.url + "x"), tmp_path)
    with pytest.raises(DataError, match="a public data set, got 'diabetes'; near: diabetes130"):
        fetch("diabetes", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="expected to write the download there"):
        fetch(a_set(server), tmp_path / "file")


def test_no_server_is_one_line(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gone = PublicSet("m", "", f"http://127.0.0.1:{port}/x", "x", "", "", "", "")
    with pytest.raises(DataError, match=r"the download broke off .*refused"):
        fetch(gone, tmp_path)


def test_every_set_says_where_it_is_from():
    for name, one in SETS.items():
        assert one.name == name and one.licence and one.citation
        assert one.url.startswith("https://") and one.page.startswith("https://")
        assert one.sha256 == "" or len(one.sha256) == 64
    assert SETS["diabetes130"].sha256.startswith("0689e7ec")
