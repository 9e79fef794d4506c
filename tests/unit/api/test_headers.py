"""Headers of requests, as API Gateway and `chalice local` pass them."""

import pytest
from chalice.app import Request

from chalicelib.api import headers


def make_request(multi_value_headers):
    event = {
        "requestContext": {"httpMethod": "GET", "resourcePath": "/"},
        "headers": {name: values[-1] for name, values in multi_value_headers.items() if values},
        "multiValueHeaders": multi_value_headers,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "body": "",
        "isBase64Encoded": False,
    }
    return Request(event, None)


CREDENTIALS = {
    "api_key": (["k"], [], ["k"]),
    "bearer": ([], ["Bearer k"], ["k"]),
    "bearer_in_any_case": ([], ["bEARER k"], ["k"]),
    "basic": ([], ["Basic k"], [""]),
    "scheme_alone": ([], ["Bearer"], [""]),
    "no_scheme": ([], ["k"], [""]),
    "both": (["k"], ["Bearer k"], ["k", "k"]),
    "key_and_other_scheme": (["k"], ["Basic k"], ["k", ""]),
    "none": ([], [], []),
}


@pytest.mark.parametrize(("api_keys", "authorizations", "expected"), CREDENTIALS.values(), ids=CREDENTIALS)
def test_all_presented_keys_are_collected(api_keys, authorizations, expected):
    multi_value_headers = {"X-Api-Key": api_keys, "Authorization": authorizations}
    assert headers.presented_keys(make_request(multi_value_headers)) == expected
