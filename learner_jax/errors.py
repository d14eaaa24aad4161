"""What can go wrong, as one tree.

    LearnerError                     everything that we raise on purpose; str(error) is one line for people
    ├── ConfigError                  a config, a flag or one of its fields
    ├── DataError                    a table, a column, a row, a site's cohort
    ├── CryptoError                  a join code, a key, a roster
    ├── StudyError                   a study that cannot go on: no quorum, another run's folder
    ├── StorageError                 disk: checkpoint, journal, spool
    │   └── CorruptError             the bytes are not those that were written
    └── ProtocolError
        ├── LocalProtocolError       we tried to do what the protocol forbids: a bug of ours
        └── RemoteProtocolError      the peer did; never an assert (carries `peer` and `reason`)

Each message says what was expected, what came and where, in one line.
"""

from __future__ import annotations


class LearnerError(Exception):
    """Root of every error that the package raises on purpose."""


class ConfigError(LearnerError):
    """A config, a flag or a field is wrong; lists every mistake found at once."""


class DataError(LearnerError):
    """A site's data do not fit what the study asks for."""


class CryptoError(LearnerError):
    """A join code, a key or the roster is wrong, used up or unknown."""


class StudyError(LearnerError):
    """A study cannot start or go on."""


class StorageError(LearnerError):
    """Something could not be written to, or read from, disk."""


class CorruptError(StorageError):
    """What lies on disk is not what was written there."""


class ProtocolError(LearnerError):
    """The wire protocol was broken."""


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol forbids here: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    Args:
      peer: who, as ZAP knows them (a site's name), or "unknown".
      reason: one line: what was expected, what came.
    """

    def __init__(self, peer: str, reason: str):
        super().__init__(f"{peer}: {reason}")
        self.peer = peer
        self.reason = reason
