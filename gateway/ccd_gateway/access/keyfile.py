"""The file of API keys: what a key may do, and the SHA-256 of its secret. The secret itself is nowhere.

A token is `ccd_<id>_<secret>` with 256 random bits of secret, so a plain SHA-256 is enough: there is no
password to guess. The id only finds the record; the token itself is judged by comparing
digests in constant time, against a digest of nothing when the id is unknown.

The file is JSON with mode 0600. It is only ever replaced as a whole, under a lock, so that a reader sees
the old or the new one. It is looked at on every request, but at most once a second touches the disk.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

PREFIX = "ccd_"
SCOPES = ("chat", "agent", "stats", "tasks", "admin")
MAX_TOKEN_BYTES = 256
_MAX_FILE_BYTES = 8 << 20
_MAX_KEYS = 10_000
_TOKEN = re.compile(r"ccd_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NO_DIGEST = hashlib.sha256(b"").hexdigest()

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Patterns = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...], Meta(max_length=200)]
Limit = Annotated[int, Meta(ge=1, le=1_000_000_000)]


ANY = "*"


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of the patterns, in which `*` and `?` are the only signs: `sonnet[1m]` is a name."""
    return any(fnmatch.fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns)


class KeyFileError(Exception):
    """A keys file that cannot be used; the message says what to do."""


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key. An absent limit is no limit.

    Attributes:
        id: public; part of the token, and what usage is booked on.
        digest: SHA-256 of the whole token, in hex.
        tenant: whose objects its holder sees; several keys may share one.
        profiles, models: patterns (`*`, `?`) of what may be asked for.
        requests_per_minute, tokens_per_minute, concurrent: limits of the answers that it may ask for.
        usd_per_day: budget for one day (UTC).
        expires: seconds since 1970.
    """

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{12}\Z")]
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    name: Name
    tenant: Name
    created: float
    expires: float | None = None
    scopes: tuple[str, ...] = ("chat",)
    profiles: Patterns = ("chat",)
    models: Patterns = ("*",)
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrent: Limit | None = None
    usd_per_day: Annotated[float, Meta(gt=0, le=1e9)] | None = None

    def may_use_model(self, name: str) -> bool:
        """Whether one of the patterns fits; what a name means is `permission`'s to say."""
        return fits(name, self.models)

    def may_use_profile(self, profile: str) -> bool:
        """Whether one of the patterns fits."""
        return fits(profile, self.profiles)

    @property
    def bound_to_models(self) -> bool:
        """Whether there are models that it may not use."""
        return ANY not in self.models

    @property
    def limited(self) -> bool:
        """Whether anything has to be counted before an answer is begun."""
        limits = (self.requests_per_minute, self.tokens_per_minute, self.concurrent, self.usd_per_day)
        return any(limit is not None for limit in limits)


class _Document(Struct, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    keys: Annotated[list[Key], Meta(max_length=_MAX_KEYS)]


def digest_of(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def find(keys: Mapping[str, Key], token: str, now_s: float) -> Key | None:
    """The key of a token, unless that is unknown, wrong or expired. Takes as long for one as for the other.

    Args:
        keys: by id.
        token: what the client sent, at most `MAX_TOKEN_BYTES` long; `""` if it sent nothing.
        now_s: seconds since 1970.
    """
    match = _TOKEN.fullmatch(token)
    key = keys.get(match[1]) if match else None
    right = hmac.compare_digest(digest_of(token), key.digest if key is not None else _NO_DIGEST)
    if key is None or not right or (key.expires is not None and now_s >= key.expires):
        return None
    return key


# --- reading ---


def read(path: Path) -> dict[str, Key]:
    """The keys in a file by id; none when there is no file.

    Raises:
        KeyFileError: others may read or own it, or it is not what it should be.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeyFileError(f"cannot read the keys file {path}: {error.strerror}") from error
    try:
        _check_owner(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    return _parsed(path, text)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyFileError(f"the keys file {path} is not a file")
    if found.st_uid not in (0, os.geteuid()) and os.geteuid() != 0:
        raise KeyFileError(f"the keys file {path} belongs to another user (uid {found.st_uid})")
    # Credentials come with an access list, whose mask shows as the group's bits.
    credential = str(path.parent) == os.environ.get("CREDENTIALS_DIRECTORY")
    if found.st_mode & (0o007 if credential else 0o077):
        raise KeyFileError(f"others may read the keys file {path}; run: chmod 600 {path}")


def _parsed(path: Path, text: bytes) -> dict[str, Key]:
    if len(text) > _MAX_FILE_BYTES:
        raise KeyFileError(f"the keys file {path} is larger than {_MAX_FILE_BYTES} bytes")
    try:
        document = msgspec.json.decode(text, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the keys file {path} is damaged: {error}") from error
    keys = {key.id: key for key in document.keys}
    if len(keys) != len(document.keys) or len({key.name for key in document.keys}) != len(keys):
        raise KeyFileError(f"the keys file {path} has the same key twice")
    return keys


# --- changing; used by `ccd ctl keys` ---


def make(
    name: str, *, now: datetime | None = None, tenant: str | None = None, **limits: object
) -> tuple[Key, str]:
    """A new key and its token, which is not stored anywhere.

    Raises:
        KeyFileError: a value that a key cannot have.
    """
    key_id = secrets.token_hex(6)
    token = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    fields = {
        "id": key_id,
        "digest": digest_of(token),
        "name": name,
        "tenant": tenant or name,
        "created": round((now or datetime.now(UTC)).timestamp(), 3),
        **{field: value for field, value in limits.items() if value is not None},
    }
    return checked(fields), token


def renewed(key: Key) -> tuple[Key, str]:
    """The same key with another token; what it may do, and its usage, stay."""
    token = f"{PREFIX}{key.id}_{secrets.token_urlsafe(32)}"
    return msgspec.structs.replace(key, digest=digest_of(token)), token


def checked(fields: Mapping[str, object]) -> Key:
    """A key from plain values.

    Raises:
        KeyFileError: naming the value that it cannot have.
    """
    try:
        key = msgspec.convert(fields, Key)
    except msgspec.ValidationError as error:
        raise KeyFileError(f"this key cannot be made: {error}") from error
    unknown = sorted(set(key.scopes) - set(SCOPES))
    if unknown or not key.scopes:
        raise KeyFileError(
            f"there is no scope {', '.join(unknown) or '(empty)'}; there are: {', '.join(SCOPES)}"
        )
    if key.tenant == "local":
        raise KeyFileError("the tenant 'local' is for requests without a key")
    return key


@contextmanager
def changing(path: Path) -> Iterator[dict[str, Key]]:
    """The keys of a file, to be changed in place; written when the block ends without an error.

    Others who change it wait for the directory's lock, which leaves no file behind that would be another user's.
    The new file takes the place of the old one at once and survives a power cut.

    Raises:
        KeyFileError: it cannot be read or written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(f"cannot write in {path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = read(path)
        yield keys
        content = msgspec.json.format(msgspec.json.encode(_Document(1, list(keys.values())))) + b"\n"
        try:
            _replace(path, content, folder)
        except OSError as error:
            raise KeyFileError(f"cannot write the keys file {path}: {error.strerror}") from error
    finally:
        os.close(folder)


def _replace(path: Path, content: bytes, folder: int) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            _give_to_owner(descriptor, path)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    os.fsync(folder)


def _give_to_owner(descriptor: int, path: Path) -> None:
    """What root changes stays readable for the service: the file belongs to whom the old one, or its folder, does."""
    if os.geteuid() == 0:
        owner = (path if path.exists() else path.parent).stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
