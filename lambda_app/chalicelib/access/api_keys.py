"""Define API keys and their records. For admission and for the operator's command line.

A key reads `pk_<id>_<secret>`. The id is public; only the SHA-256 of the secret is stored, because a slow hash would
not make 160 random bits safer. A key's signing secret grants no access: it signs the webhooks of the key's jobs.
"""

import base64
import hashlib
import hmac
import re
import secrets
from enum import StrEnum
from typing import Final

from msgspec import Struct

ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 characters, without the look-alikes l, o, 0 and 1
ID_CHARS: Final = 12
SECRET_CHARS: Final = 32  # 160 bits
SIGNING_KEY_BYTES: Final = 32  # Standard Webhooks: 24 to 64
SIGNING_PREFIX: Final = "whsec_"
UNMATCHABLE_SHA256: Final = "0" * 64  # no secret has this hash

_KEY: Final = re.compile(rf"pk_([{ALPHABET}]{{{ID_CHARS}}})_([{ALPHABET}]{{{SECRET_CHARS}}})")
_SIGNING_SECRET: Final = re.compile(r"whsec_[A-Za-z0-9+/]{43}=")


class KeyStatus(StrEnum):
    """Whether a key may be used."""

    ACTIVE = "active"
    REVOKED = "revoked"


class ApiKey(Struct, frozen=True):
    """A key with its secret, as its customer sends it. Never stored, never logged."""

    key_id: str
    secret: str

    def __str__(self) -> str:
        return f"pk_{self.key_id}_{self.secret}"

    @property
    def secret_sha256(self) -> str:
        """Return the stored form of the secret."""
        return hashlib.sha256(self.secret.encode("ascii")).hexdigest()


class KeyRecord(Struct, frozen=True, kw_only=True):
    """The stored form of a key. Times are seconds since the epoch unless named otherwise.

    Charging a request changes the last five members. Four only grow: `tat_us` and `read_tat_us` are GCRA's theoretical
    arrival times of the two rates, and `runs` counts the runs of `month`, the last month in which the key was used
    (202611). `last_charge_id` identifies the last charge.
    """

    key_id: str
    secret_sha256: str
    signing_secret: str = ""  # stored in full, to sign webhooks; keys from before webhooks have none
    previous_secret_sha256: str = UNMATCHABLE_SHA256  # valid until previous_secret_expires_at
    previous_secret_expires_at: int = 0
    status: KeyStatus
    plan: str
    owner: str
    created_at: int
    expires_at: int | None = None
    tat_us: int = 0
    read_tat_us: int = 0
    month: int = 0
    runs: int = 0
    last_charge_id: str = ""

    def __repr__(self) -> str:
        """Omit the signing secret, because a record may be logged."""
        return f"KeyRecord({self.key_id})"

    def matching_secret_attribute(self, sha256: str, *, now_us: int) -> str | None:
        """Return the name of the valid attribute that equals this hash, or None. Takes constant time."""
        current = hmac.compare_digest(self.secret_sha256, sha256)
        previous = hmac.compare_digest(self.previous_secret_sha256, sha256)
        if current:
            return "secret_sha256"
        return "previous_secret_sha256" if previous and now_us < self.previous_secret_expires_at * 1_000_000 else None


def new_key(key_id: str | None = None) -> ApiKey:
    """Return a random key. With `key_id`, only its secret is new."""
    return ApiKey(key_id or _random(ID_CHARS), _random(SECRET_CHARS))


def new_signing_secret() -> str:
    """Return a random secret for signing webhooks, in the form of Standard Webhooks: `whsec_<base64>`."""
    return SIGNING_PREFIX + base64.b64encode(secrets.token_bytes(SIGNING_KEY_BYTES)).decode("ascii")


def is_signing_secret(text: str) -> bool:
    """Return whether `text` has the form of a signing secret."""
    return _SIGNING_SECRET.fullmatch(text) is not None


def parse(text: str) -> ApiKey | None:
    """Return the key in `text`, or None if it is malformed."""
    match = _KEY.fullmatch(text)
    return ApiKey(match[1], match[2]) if match else None


def _random(chars: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(chars))
