import pytest

from chalicelib.settings import Settings, SettingsError, load

URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/python-exec-jobs"
DATA_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/python-exec-data-jobs"
WEBHOOKS = "https://sqs.eu-central-1.amazonaws.com/123456789012/python-exec-webhooks"
REQUIRED = {
    "JOB_QUEUE_URL": URL,
    "DATA_JOB_QUEUE_URL": DATA_URL,
    "KEYS_TABLE": "python-exec-keys",
    "WEBHOOK_QUEUE_URL": WEBHOOKS,
    "JOBS_TABLE": "python-exec-jobs",
    "PAYLOAD_STORE_URL": "https://a-bucket.s3.eu-central-1.amazonaws.com",
}


def test_optional_settings_have_defaults():
    assert load(REQUIRED) == Settings(
        job_queue_url=URL,
        data_job_queue_url=DATA_URL,
        default_wait_s=20.0,
        keys_table="python-exec-keys",
        jobs_table="python-exec-jobs",
        payload_store_url="https://a-bucket.s3.eu-central-1.amazonaws.com",
        metrics_namespace="PythonExec",
        result_retention_s=86_400,
        reply_queue_prefix="python-exec-reply-",
        max_queue_depth=200,
        data_max_queue_depth=20,
        webhook_queue_url=WEBHOOKS,
        local_webhook_ports="",
    )


@pytest.mark.parametrize(("text", "default_wait_s"), [("1", 1.0), ("2.5", 2.5), ("23", 23.0)])
def test_wait_within_range_is_accepted(text, default_wait_s):
    assert load(REQUIRED | {"DEFAULT_WAIT_S": text}).default_wait_s == default_wait_s


@pytest.mark.parametrize("text", ["", "0.9", "25.1", "-1", "nan", "inf", "20s"])
def test_wait_out_of_range_is_rejected(text):
    with pytest.raises(SettingsError, match="DEFAULT_WAIT_S: Expected `float`"):
        load(REQUIRED | {"DEFAULT_WAIT_S": text})


@pytest.mark.parametrize("environ", [{}, {"JOB_QUEUE_URL": ""}, {"JOB_QUEUE_URL": "python-exec-jobs"}])
def test_missing_queue_url_is_rejected(environ):
    with pytest.raises(SettingsError, match="JOB_QUEUE_URL"):
        load(environ)


@pytest.mark.parametrize("name", ["", "ab", "a b", "x" * 256])
def test_missing_table_name_is_rejected(name):
    with pytest.raises(SettingsError, match="KEYS_TABLE"):
        load(REQUIRED | {"KEYS_TABLE": name})


def test_queue_depth_is_read():
    assert load(REQUIRED | {"MAX_QUEUE_DEPTH": "1"}).max_queue_depth == 1


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many", "\u0661"])
def test_invalid_queue_depth_is_rejected(text):
    with pytest.raises(SettingsError, match="MAX_QUEUE_DEPTH: Expected `int`"):
        load(REQUIRED | {"MAX_QUEUE_DEPTH": text})


def test_local_webhooks_are_allowed_outside_lambda():
    assert load(REQUIRED | {"LOCAL_WEBHOOK_PORTS": "8080,65535"}).webhook_ports == {8080, 65535}


def test_local_webhooks_are_rejected_on_lambda():
    with pytest.raises(SettingsError, match="LOCAL_WEBHOOK_PORTS must not be set on Lambda"):
        load(REQUIRED | {"LOCAL_WEBHOOK_PORTS": "8080", "AWS_LAMBDA_FUNCTION_NAME": "f"})


@pytest.mark.parametrize("text", ["true", "0", "8080,", "8080, 8081", "123456", "-1", "\u0661"])
def test_malformed_ports_are_rejected(text):
    with pytest.raises(SettingsError, match="LOCAL_WEBHOOK_PORTS: Expected `str` matching regex"):
        load(REQUIRED | {"LOCAL_WEBHOOK_PORTS": text})


def test_no_local_port_is_allowed_by_default():
    assert load(REQUIRED).webhook_ports == load(REQUIRED | {"LOCAL_WEBHOOK_PORTS": ""}).webhook_ports == frozenset()


def test_all_invalid_settings_are_reported():
    with pytest.raises(
        SettingsError,
        match=r"JOB_QUEUE_URL.*DATA_JOB_QUEUE_URL.*WEBHOOK_QUEUE_URL.*KEYS_TABLE.*JOBS_TABLE.*DEFAULT_WAIT_S.*MAX_QUEUE_DEPTH",
    ):
        load({"DEFAULT_WAIT_S": "soon", "MAX_QUEUE_DEPTH": "deep"})
