import pytest

from chalicelib.settings import Settings, SettingsError, load

URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/python-exec-jobs"


def test_queue_alone_gets_the_default_wait():
    assert load({"JOB_QUEUE_URL": URL}) == Settings(job_queue_url=URL, reply_wait_s=20.0)


@pytest.mark.parametrize(("text", "reply_wait_s"), [("1", 1.0), ("2.5", 2.5), ("25", 25.0)])
def test_reply_wait_within_range_is_taken(text, reply_wait_s):
    assert load({"JOB_QUEUE_URL": URL, "REPLY_WAIT_S": text}).reply_wait_s == reply_wait_s


@pytest.mark.parametrize("text", ["", "0.9", "25.1", "-1", "nan", "inf", "20s"])
def test_reply_wait_out_of_range_is_refused(text):
    with pytest.raises(SettingsError, match="REPLY_WAIT_S must be a number from 1 to 25"):
        load({"JOB_QUEUE_URL": URL, "REPLY_WAIT_S": text})


@pytest.mark.parametrize("environ", [{}, {"JOB_QUEUE_URL": ""}, {"JOB_QUEUE_URL": "python-exec-jobs"}])
def test_no_queue_url_is_refused(environ):
    with pytest.raises(SettingsError, match="JOB_QUEUE_URL"):
        load(environ)


def test_several_wrong_settings_are_all_named():
    with pytest.raises(SettingsError, match=r"JOB_QUEUE_URL.*REPLY_WAIT_S"):
        load({"REPLY_WAIT_S": "soon"})
