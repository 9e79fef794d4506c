import base64
import hashlib

import pytest

from chalicelib.access import api_keys
from chalicelib.access.api_keys import ALPHABET, ApiKey, new_key, parse
from tests.support.records import make_key_record

ID, SECRET = "a" * 12, "b" * 32
NOW_S = 1_800_000_000.0
MALFORMED_KEYS = {
    "empty": "",
    "prefix": "pk_",
    "id_alone": f"pk_{ID}",
    "short_secret": f"pk_{ID}_{SECRET[1:]}",
    "long_secret": f"pk_{ID}_{SECRET}b",
    "upper_case": f"PK_{ID}_{SECRET}",
    "look_alike": f"pk_{ID}_{SECRET[1:]}l",
    "newline": f"pk_{ID}_{SECRET}\n",
    "space": f" pk_{ID}_{SECRET}",
    "nul": f"pk_{ID}_{SECRET[1:]}\0",
    "unicode": f"pk_{ID}_{SECRET[1:]}\u0430",
    "two": f"pk_{ID}_{SECRET}, pk_{ID}_{SECRET}",
}


def test_key_is_parsed_into_id_and_secret():
    assert parse(f"pk_{ID}_{SECRET}") == ApiKey(ID, SECRET)


@pytest.mark.parametrize("text", MALFORMED_KEYS.values(), ids=MALFORMED_KEYS)
def test_malformed_key_is_rejected(text):
    assert parse(text) is None


def test_new_keys_are_well_formed_and_differ():
    keys = [new_key() for _ in range(100)]
    assert [parse(str(key)) for key in keys] == keys
    assert len({key.key_id for key in keys} | {key.secret for key in keys}) == 200


def test_secret_has_160_bits():
    assert len(set(ALPHABET)) ** api_keys.SECRET_CHARS == 2**160


def test_new_secret_preserves_key_id():
    assert new_key(ID).key_id == ID


def test_hash_is_sha256_of_the_secret():
    assert ApiKey(ID, SECRET).secret_sha256 == hashlib.sha256(SECRET.encode()).hexdigest()


def test_new_signing_secrets_are_well_formed_and_differ():
    signing_secrets = {api_keys.new_signing_secret() for _ in range(100)}
    assert len(signing_secrets) == 100
    assert all(map(api_keys.is_signing_secret, signing_secrets))
    assert {len(base64.b64decode(secret.removeprefix("whsec_"))) for secret in signing_secrets} == {32}


MALFORMED_SIGNING_SECRETS = {
    "empty": "",
    "prefix": "whsec_",
    "24_bytes": f"whsec_{'a' * 32}",
    "no_padding": f"whsec_{'a' * 43}",
    "url_safe": f"whsec_{'-' * 43}=",
    "newline": f"whsec_{'a' * 43}=\n",
    "api_key": f"pk_{ID}_{SECRET}",
}


@pytest.mark.parametrize("text", MALFORMED_SIGNING_SECRETS.values(), ids=MALFORMED_SIGNING_SECRETS)
def test_malformed_signing_secret_is_rejected(text):
    assert not api_keys.is_signing_secret(text)


def test_record_repr_hides_signing_secret():
    secret = api_keys.new_signing_secret()
    assert secret not in repr(make_key_record(new_key(), signing_secret=secret))


def test_record_does_not_contain_secret():
    key = new_key()
    assert key.secret not in str(make_key_record(key))


PREVIOUS, CURRENT, OTHER = new_key(ID), new_key(ID), new_key(ID)
ROTATED = make_key_record(
    CURRENT, previous_secret_sha256=PREVIOUS.secret_sha256, previous_secret_expires_at=int(NOW_S) + 1
)
SECRET_MATCHES = {
    "current": (ROTATED, CURRENT, NOW_S, "secret_sha256"),
    "previous_within_grace": (ROTATED, PREVIOUS, NOW_S + 0.999, "previous_secret_sha256"),
    "previous_after_grace": (ROTATED, PREVIOUS, NOW_S + 1, None),
    "other": (ROTATED, OTHER, NOW_S, None),
    "never_rotated": (make_key_record(CURRENT), OTHER, NOW_S, None),
}


@pytest.mark.parametrize(("record", "key", "now_s", "attribute"), SECRET_MATCHES.values(), ids=SECRET_MATCHES)
def test_secret_matches_during_its_validity(record, key, now_s, attribute):
    assert record.matching_secret_attribute(key.secret_sha256, now_us=now_s * 1_000_000) == attribute


def test_placeholder_hash_never_matches():
    assert (
        make_key_record(CURRENT).matching_secret_attribute(api_keys.UNMATCHABLE_SHA256, now_us=NOW_S * 1_000_000)
        is None
    )
