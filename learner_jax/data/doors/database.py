"""Tables of a SQL data base, by SQLAlchemy, copied in batches to where the doors read: memory does not grow with them.

A password is no part of the address, which stands in the list of processes: it is in the data base's own place
(~/.pgpass, .my.cnf), or in a file that LEARNER_DATABASE_PASSWORD_FILE names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from learner_jax.data.doors.records import Records
from learner_jax.errors import DataError

BATCH = 50_000
"""Rows that are in memory at a time."""
PASSWORD_FILE = "LEARNER_DATABASE_PASSWORD_FILE"


def is_address(source: str) -> bool:
    """Whether this names a data base, as `sqlite:///omop.db` or `postgresql://host/cdm`."""
    return "://" in source


def tables_in(source: str, schema: str | None, records: Records, wanted: Sequence[str]) -> dict[str, str]:
    """Copies tables; name in small letters -> what they are called in `records`.

    Args:
      source: the data base's address.
      schema: of the tables; None: the data base's default.
      records: where they go, as text.
      wanted: names in small letters; those that are not there are left out.

    Raises:
      DataError: SQLAlchemy or a driver is not installed, the address holds a password, or it cannot be read.
    """
    try:
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise DataError("expected SQLAlchemy, which reads data bases: pip install 'learner-jax[ehr]'") from None
    try:
        address = sqlalchemy.make_url(source)
        if address.password is not None:
            raise DataError(
                f"expected an address without a password, which others can read in the list of processes: name a file "
                f"that holds it in {PASSWORD_FILE}"
            )
        if (file := os.environ.get(PASSWORD_FILE)) is not None:
            address = address.set(password=Path(file).read_text().strip())
        engine = sqlalchemy.create_engine(address)
        with engine.connect().execution_options(stream_results=True, yield_per=BATCH) as line:
            there = {name.lower(): name for name in sqlalchemy.inspect(line).get_table_names(schema)}
            found = {}
            for name in wanted:
                if name in there:
                    query = sqlalchemy.select(sqlalchemy.text("*")).select_from(
                        sqlalchemy.table(there[name], schema=schema)
                    )
                    found[name] = _copied(records, name, line.execute(query))
            return found
    except OSError as error:
        raise DataError(f"{PASSWORD_FILE}: expected a file, got: {error.strerror}") from None
    except (SQLAlchemyError, ImportError) as error:
        first = " ".join(str(error).split("\n", 1)[0].split())[:200]
        raise DataError(f"expected a data base that can be read at {shown(source)}, got: {first}") from None


def _copied(records: Records, name: str, result: Any) -> str:
    columns = ", ".join(f'"{one.lower()}" VARCHAR' for one in result.keys())  # noqa: SIM118  a method of a result
    records.sql(f"CREATE TABLE copied_{name} ({columns})")
    for rows in _batches(result):
        records.fill(f"copied_{name}", [[None if value is None else str(value) for value in row] for row in rows])
    return f"copied_{name}"


def _batches(result: Any) -> Iterator[list[Any]]:
    while rows := result.fetchmany(BATCH):
        yield rows


def shown(source: str) -> str:
    """An address as it may be said: without a password, and without what follows a question mark."""
    return re.sub(r"//([^/@:]*):[^/@]*@", r"//\1@", source).split("?", 1)[0]
