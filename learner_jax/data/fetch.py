"""Public data sets by name: downloaded from their publisher, with licence and citation, resumed, and checked.

A set's checksum is either known here, or *pinned at first use*: the digest of the first download is written beside the
file, said so, and held against every later one. A download that broke off goes on where it stopped, if the server
takes ranges and the file there is still the same (`If-Range`); otherwise it starts again.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from learner_jax.data.schema import near
from learner_jax.errors import CorruptError, DataError, StorageError

Progress = Callable[[int, "int | None"], None]
"""(bytes so far, bytes in all or None where the server does not say)."""

CHUNK = 1 << 18
TIMEOUT_S = 30.0


class PublicSet(NamedTuple):
    """A data set that its publisher offers for download.

    Attributes:
      name: as typed.
      title: one line.
      url: the publisher's file.
      file: name of the file that is kept; inside the publisher's zip, if the download is one.
      sha256: of that file; "" to pin at first use.
      licence: its short name.
      citation: how its authors want to be cited.
      page: the publisher's page, for people.
      parts: (a file inside the zip, what its rows have in the first column), of which `file` is put together; () if
        the publisher's file is taken as it is.
      header: of `file`, where it is put together.
    """

    name: str
    title: str
    url: str
    file: str
    sha256: str
    licence: str
    citation: str
    page: str
    parts: tuple[tuple[str, str], ...] = ()
    header: str = ""


class Fetched(NamedTuple):
    """What `fetch` did.

    Attributes:
      path: the file.
      sha256: its digest.
      downloaded: False if it was there already, and right.
      pinned: True if this download set the digest that later ones are held against.
      notice: lines to show: title, licence, citation, and how the digest was checked.
    """

    path: Path
    sha256: str
    downloaded: bool
    pinned: bool
    notice: str


_UCI = "https://archive.ics.uci.edu"

SETS: dict[str, PublicSet] = {
    one.name: one
    for one in (
        PublicSet(
            name="diabetes130",
            title="Diabetes 130-US Hospitals for Years 1999-2008: 101,766 inpatient encounters",
            url=f"{_UCI}/static/public/296/diabetes+130-us+hospitals+for+years+1999-2008.zip",
            file="diabetic_data.csv",
            sha256="0689e7ec031237dc63031b938805c48377748761a3b26acab621567afa24df97",
            licence="CC BY 4.0",
            citation="Strack et al., BioMed Research International 2014, 781670. https://doi.org/10.1155/2014/781670",
            page=f"{_UCI}/dataset/296",
        ),
        PublicSet(
            name="heart-disease",
            title="Heart Disease: 920 patients of four hospitals",
            url=f"{_UCI}/static/public/45/heart+disease.zip",
            file="heart_disease.csv",
            sha256="",
            licence="CC BY 4.0",
            citation="Janosi, Steinbrunn, Pfisterer, Detrano: Heart Disease. UCI 1989. https://doi.org/10.24432/C52P4X",
            page=f"{_UCI}/dataset/45",
            parts=tuple((f"processed.{name}.data", name) for name in ("cleveland", "hungarian", "switzerland", "va")),
            header="hospital,age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,num",
        ),
    )
}


def fetch(
    name: str | PublicSet,
    folder: str | os.PathLike[str],
    progress: Progress | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> Fetched:
    """Downloads a public data set, unless its file is there already and is the right one.

    Args:
      name: one of `SETS`, or a set of one's own.
      folder: where to put it; made if need be.
      progress: called after each chunk.
      timeout_s: how long the server may stay silent.

    Returns:
      Where the file is, its digest, and the notice to show.

    Raises:
      DataError: no set of that name, or the server does not give the file; what came so far stays for the next try.
      CorruptError: the bytes are not those that the checksum names; they are thrown away.
      StorageError: they cannot be written.
    """
    wanted = name if isinstance(name, PublicSet) else _known(name)
    folder = Path(folder)
    path, pin = folder / wanted.file, folder / f"{wanted.file}.pin.json"
    expected, pinned_before = wanted.sha256, False
    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not expected and pin.is_file():
            expected, pinned_before = json.loads(pin.read_text(encoding="utf-8"))["sha256"], True
        if path.is_file() and expected and _digest(path) == expected:
            return Fetched(path, expected, False, False, _notice(wanted, expected, pinned_before))

        part = folder / f"{wanted.file}.part"
        _download(wanted, part, progress, timeout_s)
        content = _unpacked(part, wanted)
        digest = hashlib.sha256(content).hexdigest()
        if expected and digest != expected:
            _forget(part)
            what = "pinned at first use" if pinned_before else "known"
            raise CorruptError(
                f"{wanted.url}: expected {wanted.file} with sha256 {expected} ({what}), got {digest}; thrown away"
            )
        _put(path, content)
        if not expected:
            _put(pin, json.dumps({"sha256": digest, "url": wanted.url}).encode())
        _forget(part)
    return Fetched(path, digest, True, not expected, _notice(wanted, digest, pinned_before))


def _known(name: str) -> PublicSet:
    if name not in SETS:
        hint = near(name, SETS) or list(SETS)
        raise DataError(f"expected the name of a public data set, got '{name}'; near: {', '.join(hint)}")
    return SETS[name]


def _notice(wanted: PublicSet, digest: str, pinned_before: bool) -> str:
    if wanted.sha256:
        checked = "its checksum is the known one"
    elif pinned_before:
        checked = "its checksum is the one pinned at first use"
    else:
        checked = "no checksum is known for it; this one is pinned for later downloads"
    return "\n".join(
        (
            wanted.title,
            f"Licence: {wanted.licence}. {wanted.page}",
            f"Cite: {wanted.citation}",
            f"sha256 {digest}: {checked}.",
        )
    )


# ---- Download --------------------------------------------------------------------------------------------------------


def _download(wanted: PublicSet, part: Path, progress: Progress | None, timeout_s: float) -> None:
    """Brings `part` to the whole of the publisher's file, from where it stands if that can be."""
    tag_file = part.with_name(part.name + ".tag")
    have = part.stat().st_size if part.is_file() else 0
    tag = tag_file.read_text(encoding="utf-8") if have and tag_file.is_file() else ""
    headers = {"User-Agent": "learner-data-fetch", "Accept-Encoding": "identity"}
    if have and tag:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    else:
        have = 0
    try:
        with urllib.request.urlopen(urllib.request.Request(wanted.url, headers=headers), timeout=timeout_s) as answer:
            goes_on = answer.status == 206 and _begins(answer) == have
            if answer.status == 206 and not goes_on:
                raise DataError(f"{wanted.url}: expected bytes from {have} on, got another range; try again later")
            have = have if goes_on else 0
            total = _total(answer, have)
            if not goes_on:
                _put(tag_file, _tag(answer).encode())
            have = _copy(answer, part, have, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is as long as the file, or the file has become shorter
            _forget(part)
            return _download(wanted, part, progress, timeout_s)
        raise DataError(f"{wanted.url}: expected the file, got HTTP {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise DataError(
            f"{wanted.url}: the download broke off ({reason}); the same command goes on from here"
        ) from None
    if total is not None and have != total:
        raise DataError(
            f"{wanted.url}: the download broke off at {have} of {total} bytes; the same command goes on from here"
        )
    return None


def _copy(answer, part: Path, have: int, total: int | None, progress: Progress | None) -> int:
    with part.open("ab" if have else "wb") as file:
        while True:
            try:
                chunk = answer.read(CHUNK)
            except http.client.IncompleteRead as error:
                chunk = error.partial
                if not chunk:
                    return have
            if not chunk:
                return have
            file.write(chunk)
            have += len(chunk)
            if progress is not None:
                progress(have, total)


def _begins(answer) -> int:
    """First byte of a partial answer, from "bytes 100-199/200"; -1 if it does not say."""
    given = (answer.headers.get("Content-Range") or "").removeprefix("bytes").strip()
    first = given.partition("-")[0]
    return int(first) if first.isdigit() else -1


def _total(answer, have: int) -> int | None:
    length = answer.headers.get("Content-Length")
    return have + int(length) if length and length.isdigit() else None


def _tag(answer) -> str:
    """What tells whether the file is still the same: a strong ETag, else the date; "" if the server gives neither."""
    tag = answer.headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified") or ""


# ---- Files -----------------------------------------------------------------------------------------------------------


def _unpacked(part: Path, wanted: PublicSet) -> bytes:
    """The wanted file's bytes: of the download, or of the file of that name inside the zip (or in a zip in it)."""
    content = part.read_bytes()
    if not wanted.url.endswith(".zip") and not zipfile.is_zipfile(io.BytesIO(content)):
        return content
    try:
        if not wanted.parts:
            return _from_zip(content, wanted.file, deep=2)
        tables = [(first, _from_zip(content, file, deep=2).decode("ascii").split()) for file, first in wanted.parts]
        rows = [f"{first},{row}" for first, table in tables for row in table]
        return "\n".join([wanted.header, *rows, ""]).encode()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError, UnicodeError):
        _forget(part)
        raise CorruptError(
            f"{wanted.url}: expected a zip that holds {wanted.file}, got another or a damaged one"
        ) from None


def _from_zip(content: bytes, file: str, deep: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.rpartition("/")[2] == file:
                return archive.read(name)
        for name in archive.namelist():
            if deep > 1 and name.endswith(".zip"):
                with contextlib.suppress(KeyError):
                    return _from_zip(archive.read(name), file, deep - 1)
    raise KeyError(file)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(path: Path, content: bytes) -> None:
    """Written beside and renamed, so that a file is there whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".tag").unlink(missing_ok=True)


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{folder}: expected to write the download there, got: {error.strerror or error}") from None
