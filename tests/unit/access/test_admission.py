from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access import rate_limits
from chalicelib.access.admission import MAX_UPDATE_ATTEMPTS, Admission
from chalicelib.access.api_keys import KeyStatus, new_key
from chalicelib.access.key_cache import MAX_ENTRIES, TTL_S, KeyCache
from chalicelib.access.plans import PLANS
from chalicelib.access.usage import key_usage
from chalicelib.problems import ProblemError
from tests.support.fakes.tables import FakeKeyTable
from tests.support.problems import raises_problem
from tests.support.records import make_key_record

PLAN = replace(PLANS["pro"], requests_per_second=5, burst=10, runs_per_month=60)
TEST_PLANS = {"pro": PLAN, "free": replace(PLAN, name="free", burst=2)}
KEY = new_key()
NOVEMBER_S = 1_794_000_000  # 2026-11-06


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock(float(NOVEMBER_S))


@pytest.fixture
def table():
    return FakeKeyTable(make_key_record(KEY))


@pytest.fixture
def admission(table, clock):
    return Admission(table, plans=TEST_PLANS, clock=clock)


def charge(admission, *presented):
    caller = admission.authenticate(presented or [str(KEY)])
    admission.reject_if_limited(caller, runs=1)
    return admission.charge(caller)


def read_usage(admission):
    return key_usage(admission.charge_read(admission.authenticate([str(KEY)])))


def count_admitted(admission, tries, key=KEY):
    count = 0
    for _ in range(tries):
        try:
            charge(admission, str(key))
        except ProblemError:
            continue
        count += 1
    return count


def test_valid_key_is_admitted_and_counted(admission, table):
    assert charge(admission).quota_status.runs_left == 59
    assert table.records[KEY.key_id].runs == 1


def test_cached_key_costs_one_write(admission, table, clock):
    charge(admission)
    table.calls.clear()
    for number in range(1, 40):
        clock.now += (0.2, 0.3, 5.0)[number % 3]  # busy and idle
        charge(admission)
        assert table.calls == {"charge": number}


def test_month_rollover_costs_one_write(admission, table, clock):
    count_admitted(admission, 3)
    table.calls.clear()
    clock.now += 30 * 86_400
    assert charge(admission).quota_status.runs_left == 59
    assert table.calls == {"charge": 1}


def test_burst_then_rate(admission, clock):
    assert count_admitted(admission, 20) == 10
    clock.now += 1
    assert count_admitted(admission, 20) == 5
    clock.now += 0.2
    assert count_admitted(admission, 20) == 1
    clock.now += 100
    assert count_admitted(admission, 20) == 10


def test_quota_resets_at_month_rollover(admission, clock):
    total = 0
    for _ in range(30):
        total += count_admitted(admission, 12)
        clock.now += 10
    assert total == 60
    clock.now += 30 * 86_400
    assert count_admitted(admission, 12) == 10


def test_rate_limited_key_makes_no_calls_until_reset(admission, table, clock):
    count_admitted(admission, 11)
    table.calls.clear()
    assert count_admitted(admission, 1000) == 0
    clock.now += 0.199999
    assert (count_admitted(admission, 1), table.calls) == (0, {})
    clock.now += 0.000001
    assert (count_admitted(admission, 1), table.calls) == (1, {"charge": 1})


def test_request_over_the_rate_consumes_neither_rate_nor_quota(admission, table):
    count_admitted(admission, 10)
    before = table.records[KEY.key_id]
    assert (count_admitted(admission, 90), before.runs) == (0, 10)
    assert table.records[KEY.key_id] == before


def test_exhausted_quota_counts_toward_the_rate_until_it_is_cached(admission, table, clock):
    charge(admission)
    clock.now += 100
    table.change(KEY.key_id, runs=60)
    assert count_admitted(admission, 100) == 0
    record = table.records[KEY.key_id]
    assert (record.runs, record.tat_us) == (60, int(clock.now * 1e6) + rate_limits.interval_us(PLAN.run_rate))


def test_exhausted_quota_names_the_end_of_the_month(admission, table):
    table.change(KEY.key_id, **USED_UP_QUOTA)
    with raises_problem(problems.QUOTA_EXCEEDED) as caught:
        charge(admission)
    assert caught.value.problem.detail == "Plan pro allows 60 runs per month. Retry after 2026-12-01T00:00:00Z."


@pytest.mark.parametrize("used_up", ["rate", "month"])
def test_request_succeeds_after_retry_after(admission, table, clock, used_up):
    if used_up == "month":
        table.change(KEY.key_id, runs=60, month=202611)
    count_admitted(admission, 11)
    clock.now += 0.01
    with raises_problem(problems.RATE_LIMITED if used_up == "rate" else problems.QUOTA_EXCEEDED) as caught:
        charge(admission)
    clock.now += int(caught.value.headers["Retry-After"])
    charge(admission)


def test_retry_after_is_minimal(admission, table, clock):
    table.change(KEY.key_id, tat_us=(NOVEMBER_S + 100) * rate_limits.SECOND_US)
    with raises_problem(problems.RATE_LIMITED) as caught:
        charge(admission)
    clock.now += int(caught.value.headers["Retry-After"]) - 1
    assert count_admitted(admission, 1) == 0


def test_revoked_key_is_refused_at_the_next_request(admission, table):
    charge(admission)
    table.change(KEY.key_id, status=KeyStatus.REVOKED)
    with raises_problem(problems.KEY_REVOKED) as caught:
        charge(admission)
    assert (caught.value.problem.status, caught.value.problem.type.rpartition(":")[2]) == (403, "key-revoked")
    assert table.records[KEY.key_id].runs == 1


def test_revoked_key_rejection_is_cached(admission, table):
    table.change(KEY.key_id, status=KeyStatus.REVOKED)
    for _ in range(5):
        with raises_problem(problems.KEY_REVOKED):
            charge(admission)
    assert table.calls == {"read": 1}


def test_deleted_key_is_rejected_on_next_request(admission, table):
    charge(admission)
    del table.records[KEY.key_id]
    with raises_problem(problems.UNAUTHORIZED):
        charge(admission)


def test_key_expires_at_exact_second(admission, table, clock):
    table.change(KEY.key_id, expires_at=NOVEMBER_S + 10)
    clock.now += 9.9
    charge(admission)
    clock.now += 0.1
    with raises_problem(problems.KEY_EXPIRED) as caught:
        charge(admission)
    assert caught.value.problem.type.rpartition(":")[2] == "key-expired"
    assert caught.value.problem.detail == "This key expired at 2026-11-06T21:20:10Z."


def test_expiry_added_after_caching_is_enforced(admission, table, clock):
    charge(admission)
    table.change(KEY.key_id, expires_at=NOVEMBER_S - 1)
    with raises_problem(problems.KEY_EXPIRED):
        charge(admission)


def test_plan_downgrade_applies_to_next_request(admission, table):
    charge(admission)
    table.change(KEY.key_id, plan="free")
    assert count_admitted(admission, 10) == 1


def test_plan_upgrade_applies_within_cache_ttl(table, clock, monkeypatch):
    monotonic = Clock(0.0)
    admission = Admission(table, plans=TEST_PLANS, clock=clock)
    admission._key_cache = KeyCache(clock=monotonic)
    table.change(KEY.key_id, runs=60, month=202611)
    plans = {**TEST_PLANS, "pro": PLAN, "free": replace(PLAN, name="free", runs_per_month=100)}
    admission._plans = plans
    assert count_admitted(admission, 1) == 0
    table.change(KEY.key_id, plan="free")
    assert count_admitted(admission, 1) == 0
    monotonic.now += TTL_S
    assert count_admitted(admission, 1) == 1


def rotate(table, *, until):
    new = new_key(KEY.key_id)
    current = table.records[KEY.key_id]
    table.change(
        KEY.key_id,
        secret_sha256=new.secret_sha256,
        previous_secret_sha256=current.secret_sha256,
        previous_secret_expires_at=int(until),
    )
    return new


@pytest.mark.parametrize("is_cached", [True, False])
def test_both_secrets_work_during_rotation_grace_period(admission, table, clock, is_cached):
    if is_cached:
        charge(admission)
    new = rotate(table, until=clock.now + 60)
    charge(admission, str(KEY))
    charge(admission, str(new))
    clock.now += 59.9
    charge(admission, str(KEY))
    clock.now += 0.1
    with raises_problem(problems.UNAUTHORIZED):
        charge(admission, str(KEY))
    charge(admission, str(new))


def test_rotation_without_grace_rejects_old_secret_immediately(admission, table, clock):
    charge(admission)
    rotate(table, until=clock.now)
    with raises_problem(problems.UNAUTHORIZED):
        charge(admission)
    assert table.records[KEY.key_id].runs == 1


INVALID_CREDENTIALS = {
    "missing": ([], 0),
    "empty": ([""], 0),
    "malformed": (["x"], 0),
    "huge": (["pk_" + "x" * 10_000], 0),
    "two": ([str(KEY), str(KEY)], 0),
    "unknown": ([str(new_key())], 1),
    "wrong_secret": ([str(new_key(KEY.key_id))], 1),
}


@pytest.mark.parametrize("is_cached", [True, False], ids=["cached", "not_cached"])
@pytest.mark.parametrize(("presented", "reads"), INVALID_CREDENTIALS.values(), ids=INVALID_CREDENTIALS)
def test_401s_are_identical_and_malformed_keys_cost_no_read(admission, table, presented, reads, is_cached):
    if is_cached:
        charge(admission)
    table.calls.clear()
    with raises_problem(problems.UNAUTHORIZED) as caught:
        admission.authenticate(presented)
    assert table.calls["read"] == table.calls.total() == reads
    expected = ProblemError(problems.UNAUTHORIZED)
    assert (caught.value.problem, caught.value.headers) == (expected.problem, expected.headers)


def test_key_may_be_surrounded_by_spaces(admission):
    assert admission.authenticate([f" {KEY} "]).record.key_id == KEY.key_id


USED_UP_RATE = {"tat_us": (NOVEMBER_S + 9) * rate_limits.SECOND_US}
USED_UP_QUOTA = {"runs": 60, "month": 202611}
LIMITED = {
    "rate": (USED_UP_RATE, 1, problems.RATE_LIMITED),
    "rate_of_a_replay": (USED_UP_RATE, 0, problems.RATE_LIMITED),
    "quota": (USED_UP_QUOTA, 1, problems.QUOTA_EXCEEDED),
    "rate_and_quota": (USED_UP_RATE | USED_UP_QUOTA, 1, problems.QUOTA_EXCEEDED),
    "revoked": ({"status": KeyStatus.REVOKED}, 1, problems.KEY_REVOKED),
    "revoked_replay": ({"status": KeyStatus.REVOKED}, 0, problems.KEY_REVOKED),
    "expired": ({"expires_at": NOVEMBER_S}, 1, problems.KEY_EXPIRED),
}


@pytest.mark.parametrize(("changes", "runs", "problem_type"), LIMITED.values(), ids=LIMITED)
def test_limited_key_is_rejected_without_a_call_and_as_when_charged(admission, table, changes, runs, problem_type):
    table.change(KEY.key_id, **changes)
    caller = admission.authenticate([str(KEY)])
    table.calls.clear()
    with raises_problem(problem_type) as rejected:
        admission.reject_if_limited(caller, runs=runs)
    assert table.calls == {}
    with raises_problem(problem_type) as uncharged:
        admission.charge(caller, runs=runs)
    assert (rejected.value.problem, rejected.value.headers) == (uncharged.value.problem, uncharged.value.headers)


ALLOWED = {
    "unused": ({}, 1),
    "last_request_of_the_burst": ({"tat_us": NOVEMBER_S * rate_limits.SECOND_US + 1_800_000}, 1),
    "last_run_of_the_month": ({"runs": 59, "month": 202611}, 1),
    "replay_without_quota": (USED_UP_QUOTA, 0),
    "expires_later": ({"expires_at": NOVEMBER_S + 1}, 1),
}


@pytest.mark.parametrize(("changes", "runs"), ALLOWED.values(), ids=ALLOWED)
def test_key_within_limits_is_not_rejected_and_makes_no_call(admission, table, changes, runs):
    table.change(KEY.key_id, **changes)
    caller = admission.authenticate([str(KEY)])
    table.calls.clear()
    admission.reject_if_limited(caller, runs=runs)
    assert table.calls == {}
    admission.charge(caller, runs=runs)


def test_cached_rejection_lasts_until_the_rate_recovers(admission, table, clock):
    count_admitted(admission, 11)
    table.calls.clear()
    with raises_problem(problems.RATE_LIMITED):
        admission.reject_if_limited(admission.authenticate([str(KEY)]), runs=1)
    clock.now += 0.2
    admission.reject_if_limited(admission.authenticate([str(KEY)]), runs=1)
    assert table.calls == {}


def test_table_failure_rejects_all_requests(admission, table):
    charge(admission)
    table.is_unavailable = True
    for presented in (str(KEY), str(new_key())):
        with raises_problem(problems.AUTHENTICATION_UNAVAILABLE) as caught:
            charge(admission, presented)
        assert (caught.value.problem.status, caught.value.headers) == (503, {"Retry-After": "2"})
    table.is_unavailable = False
    charge(admission)


def test_persistent_update_conflict_returns_503(table, clock):
    class AlwaysConflictingTable(FakeKeyTable):
        def charge(self, expected, plan, **options):
            self.change(KEY.key_id, plan="free" if plan.name == "pro" else "pro")
            return super().charge(expected, plan, **options)

    table = AlwaysConflictingTable(make_key_record(KEY))
    with raises_problem(problems.AUTHENTICATION_UNAVAILABLE):
        charge(Admission(table, plans=TEST_PLANS, clock=clock))
    assert table.calls["charge"] == MAX_UPDATE_ATTEMPTS


def test_concurrent_process_adds_at_most_two_writes(table, clock):
    ours, theirs = (Admission(table, plans=TEST_PLANS, clock=clock) for _ in range(2))
    for admission in (ours, theirs):
        charge(admission)
    for pause_s in (0.2, 3.0, 0.0, 30 * 86_400.0, 3.0):
        clock.now += pause_s
        charge(theirs)
        table.calls.clear()
        charge(ours)
        assert table.calls["charge"] <= 2


def test_concurrent_requests_are_limited_to_burst(admission):
    with ThreadPoolExecutor(64) as threads:
        assert sum(threads.map(lambda _: count_admitted(admission, 3), range(64))) == 10


def test_usage_shows_the_plan_and_what_is_left(admission, table, clock):
    count_admitted(admission, 3)
    table.calls.clear()
    usage = read_usage(admission)
    assert (usage.key_id, usage.plan, usage.used, usage.left) == (KEY.key_id, "pro", 3, 57)
    limits = msgspec.to_builtins(usage.limits)
    assert (limits["requests_per_second"], limits["burst"], limits["runs_per_month"]) == (5, 10, 60)
    assert (limits["timeout_s"], limits["input_bytes"]) == (PLAN.max_timeout_s, PLAN.max_input_bytes)
    assert usage.resets_at == "2026-12-01T00:00:00Z"
    assert table.calls == {"charge": 1}


def test_concurrent_reads_are_limited_to_burst(admission):
    def is_admitted(_):
        try:
            read_usage(admission)
        except ProblemError:
            return False
        return True

    with ThreadPoolExecutor(64) as threads:
        assert sum(threads.map(is_admitted, range(1000))) == PLAN.read_rate.burst


def test_reads_and_runs_have_separate_rates(admission, table):
    table.change(KEY.key_id, read_tat_us=(NOVEMBER_S + 9) * rate_limits.SECOND_US)
    with raises_problem(problems.RATE_LIMITED) as caught:
        read_usage(admission)
    assert caught.value.headers == {"Retry-After": "8"}
    assert caught.value.problem.detail == "Plan pro allows 200 reads per second (burst 400). Retry in 8 s."
    assert (count_admitted(admission, 20), table.records[KEY.key_id].runs) == (10, 10)


def test_usage_is_available_when_rate_limited(admission, table):
    table.change(KEY.key_id, runs=60, month=202611, tat_us=(NOVEMBER_S + 9) * rate_limits.SECOND_US)
    assert read_usage(admission).left == 0


def test_usage_of_a_revoked_key_is_refused(admission, table):
    table.change(KEY.key_id, status=KeyStatus.REVOKED)
    with raises_problem(problems.KEY_REVOKED):
        read_usage(admission)


def test_key_cache_is_bounded():
    cache = KeyCache()
    keys = [new_key() for _ in range(MAX_ENTRIES + 10)]
    for key in keys:
        cache.put(make_key_record(key))
    assert [cache.get(key.key_id) is None for key in keys] == [True] * 10 + [False] * MAX_ENTRIES


def test_key_cache_entry_expires():
    clock = Clock(0.0)
    cache = KeyCache(clock=clock)
    cache.put(make_key_record(KEY))
    clock.now = TTL_S - 0.01
    assert cache.get(KEY.key_id)
    clock.now = TTL_S
    assert cache.get(KEY.key_id) is None


def test_key_cache_ignores_stale_update():
    cache = KeyCache()
    cache.put(make_key_record(KEY, tat_us=2))
    cache.put(make_key_record(KEY, tat_us=1))
    assert cache.get(KEY.key_id).tat_us == 2
