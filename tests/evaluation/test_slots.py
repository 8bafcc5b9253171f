"""Slots: planned once, leased to workers, settled by their outcomes exactly once."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isnan
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import (
    MODEL,
    NOW,
    complete_all,
    expire_leases,
    failure,
    make_run,
    make_scenarios,
    slots_of,
    success,
    transcript,
)

from stemmadb.database import Database
from stemmadb.errors import (
    DocumentTooLargeError,
    FrozenError,
    InvalidTransitionError,
    LeaseLostError,
    NotFoundError,
    ReferenceNotFoundError,
    ValidationError,
)
from stemmadb.evaluation import _run_slots, runs, transcripts
from stemmadb.evaluation.data import ScoreCreate, SlotClaim, SlotKey, SlotOutcome, TranscriptCreate
from stemmadb.evaluation.documents import Evidence, RunConfig, ScoreRationale, TranscriptContent, TranscriptMetrics, Turn
from stemmadb.evaluation.entities import RunSlot, RunStatus, SlotStatus
from stemmadb.evaluation.vocabularies import AnnotatorKind
from stemmadb.query import translated
from stemmadb.testing import assert_max_queries, count_queries, run_together

JUDGE = ScoreCreate(annotator_kind=AnnotatorKind.MODEL, annotator="judge", value=0.5)


def kinds(results: list) -> list[str]:
    return [str(result.result) for result in results]


def slot_of(session: Session, claim: SlotClaim) -> RunSlot:
    return next(slot for slot in slots_of(session, claim.key.run_id) if key_of(slot) == claim.key)


def key_of(slot: RunSlot) -> SlotKey:
    return SlotKey(slot.run_id, slot.scenario_id, slot.model, slot.sample_index)


def rows(session: Session, table: str) -> int:
    return int(session.execute(text(f"SELECT count(*) FROM stemma.{table}")).scalar_one())


# -------------------------------------------------------------------------------------------------------------------- plan


@pytest.mark.requirement("AD-005", "VR-053")
def test_slots_are_planned_once(session: Session) -> None:
    """A run plans scenarios x models x samples, once; its progress is counted from then on."""
    run = make_run(session, scenario_count=2, models=("a", "b"), started=False, samples_per_scenario=2)
    assert runs.plan_slots(session, run.id) == 8
    assert (run.slot_count, run.progress) == (8, None)
    assert {(slot.model, slot.sample_index) for slot in slots_of(session, run.id)} == {(m, n) for m in "ab" for n in (0, 1)}
    with pytest.raises(FrozenError):
        runs.plan_slots(session, run.id)
    assert runs.progress(session, run.id).total == 8


@pytest.mark.requirement("AD-005")
def test_a_plan_may_differ_from_the_configuration(session: Session) -> None:
    """Scenarios, models and samples can be given; repeated ones count once."""
    run = make_run(session, scenario_count=1, models=("a",), started=False)
    extra = make_scenarios(session, run.definition_id, 3)
    ids = [extra[1].id, str(extra[2].id), extra[1].id]
    assert runs.plan_slots(session, run.id, scenario_ids=ids, models=["x", "y", "x"], samples=3) == 12
    assert {slot.scenario_id for slot in slots_of(session, run.id)} == {extra[1].id, extra[2].id}


@pytest.mark.requirement("AD-005")
def test_plan_refusals(session: Session) -> None:
    """Nothing to plan, blank models, unknown scenarios and finished runs are refused; the run can still be planned."""
    run = make_run(session, scenario_count=1, started=False)
    for given in ({"models": []}, {"scenario_ids": []}, {"models": [" "]}, {"models": ["a\0"]}, {"samples": 0}):
        with pytest.raises(ValidationError):
            runs.plan_slots(session, run.id, **given)  # type: ignore[arg-type]
    with pytest.raises(ReferenceNotFoundError):
        runs.plan_slots(session, run.id, scenario_ids=[uuid4()])
    empty = make_run(session, scenario_count=0, started=False)
    with pytest.raises(ValidationError):
        runs.plan_slots(session, empty.id)
    assert runs.plan_slots(session, run.id) == 1
    runs.request_cancel(session, empty.id)
    with pytest.raises(InvalidTransitionError):
        runs.plan_slots(session, empty.id, models=["a"])


@pytest.mark.requirement("AD-005")
def test_the_slot_count_never_changes(session: Session) -> None:
    """The database refuses another number of slots, whatever the statement."""
    run = make_run(session)
    with pytest.raises(FrozenError), translated(), session.begin_nested():
        run.slot_count = 5


# ------------------------------------------------------------------------------------------------------------------- claim


@pytest.mark.requirement("AD-006")
def test_a_claim_is_a_lease(session: Session) -> None:
    """A claimed slot runs under the worker's name, once more tried, until its lease expires on the database's clock."""
    run = make_run(session, scenario_count=2, lease_seconds=120)
    (claim,) = runs.claim_slots(session, run.id, worker="w1")
    slot = slot_of(session, claim)
    assert (slot.status, slot.attempt, slot.lease_owner) == (SlotStatus.RUNNING, claim.attempt, "w1")
    assert (claim.attempt, claim.worker, claim.lease_expires_at) == (1, "w1", slot.lease_expires_at)
    assert slot.started_at is not None
    assert claim.lease_expires_at - slot.started_at == timedelta(seconds=120)
    (other,) = runs.claim_slots(session, run.id, worker="w2", count=5, lease=timedelta(milliseconds=1500))
    assert other.key != claim.key
    started_at = slot_of(session, other).started_at
    assert started_at is not None
    assert other.lease_expires_at - started_at == timedelta(seconds=1.5)
    assert not runs.claim_slots(session, run.id, worker="w3")


def test_claims_come_by_available_at(session: Session) -> None:
    """What has waited longest is claimed first, and what is not due is not claimed."""
    run = make_run(session, scenario_count=4)
    slots = slots_of(session, run.id)
    for slot, minutes in zip(slots, (-1, -3, 5, -2), strict=True):
        slot.available_at = datetime.now(UTC) + timedelta(minutes=minutes)
    session.flush()
    (first,) = runs.claim_slots(session, run.id, worker="w")
    rest = runs.claim_slots(session, run.id, worker="w", count=9)
    assert [claim.key for claim in (first, *rest)] == [key_of(slots[n]) for n in (1, 3, 0)]


def test_claims_are_narrowed_to_models(session: Session) -> None:
    """A worker that serves some models gets only their slots."""
    run = make_run(session, scenario_count=3, models=("a", "b", "c"))
    claims = runs.claim_slots(session, run.id, worker="w", count=20, models={"a", "c"})
    assert Counter(claim.key.model for claim in claims) == {"a": 3, "c": 3}
    assert not runs.claim_slots(session, run.id, worker="w", models=["nobody"])


def test_claims_across_runs(session: Session) -> None:
    """Without a run, every running one is served, the one that waits longest first; a batch may span several."""
    paused, young, old = (make_run(session, scenario_count=2) for _ in range(3))
    runs.pause(session, paused.id)
    make_run(session, started=False)
    for run, minutes in ((paused, 30), (young, 10), (old, 20)):
        session.execute(
            text("UPDATE stemma.run_slots SET available_at = now() - make_interval(mins => :minutes) WHERE run_id = :id"),
            {"minutes": minutes, "id": run.id},
        )
    with assert_max_queries(3):
        claims = runs.claim_slots(session, worker="w", count=3)
    assert [claim.key.run_id for claim in claims] == [old.id, old.id, young.id]
    assert len(runs.claim_slots(session, worker="w", count=10)) == 1
    assert not runs.claim_slots(session, worker="w")
    expire_leases(session, old.id)
    assert {claim.key.run_id for claim in runs.claim_slots(session, worker="w2", count=9)} == {old.id}


@pytest.mark.requirement("AD-006")
def test_an_expired_lease_is_taken_over_while_attempts_remain(session: Session) -> None:
    """A slot whose worker fell silent goes to another one, but not beyond max_attempts."""
    run = make_run(session, scenario_count=1, max_attempts=2)
    (first,) = runs.claim_slots(session, run.id, worker="w1")
    expire_leases(session, run.id)
    (second,) = runs.claim_slots(session, run.id, worker="w2")
    assert (second.key, second.attempt) == (first.key, 2)
    expire_leases(session, run.id)
    assert not runs.claim_slots(session, run.id, worker="w3")
    assert runs.reconcile(session, run.id).finished
    slot = slot_of(session, first)
    assert (slot.status, slot.error_code) == (SlotStatus.FAILED, "lease_expired")


def test_claim_refusals(session: Session) -> None:
    """A blank worker, no slots and no time are refused before anything is sent; a run that does not run has nothing to claim."""
    run = make_run(session, started=False)
    assert not runs.claim_slots(session, run.id, worker="w")
    for given in ({"worker": " "}, {"worker": "a\0"}, {"worker": "w", "count": 0}, {"worker": "w", "lease": NOW}):
        with assert_max_queries(0), pytest.raises(ValidationError):
            runs.claim_slots(session, run.id, **given)  # type: ignore[arg-type]


def test_a_claim_reads_what_it_takes(committed_db: Database, committed_workspace: UUID) -> None:
    """Claiming from a run that was planned a moment ago costs index probes, however many slots are queued, without statistics."""
    with committed_db.session(committed_workspace) as session:
        run_id = make_run(session, scenario_count=500, models=[f"m{n}" for n in range(8)]).id
    with committed_db.session(committed_workspace) as session:
        explained = text(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {_run_slots._CLAIM.text.text}")
        given = {"workspace_id": committed_workspace, "run_id": run_id, "worker": "w", "count": 10, "models": None, "lease_s": None}
        plan = "\n".join(row[0] for row in session.execute(explained, given))
    assert "Index Scan using run_slots_run_id_status_available_at_idx" in plan
    assert "Conflicting Tuples: 10" in plan
    assert "rows=4000" not in plan.replace(".00", "")


@pytest.mark.race
@pytest.mark.requirement("AD-006")
def test_concurrent_workers_get_different_slots(committed_db: Database, committed_workspace: UUID) -> None:
    """Eight workers that claim at once share the slots without one being given twice, and without waiting for each other."""
    with committed_db.session(committed_workspace) as session:
        run_id = make_run(session, scenario_count=40).id
    everybody_claimed = threading.Barrier(8)

    def claim(number: int) -> list[SlotClaim]:
        with committed_db.session(committed_workspace) as session:
            claims = runs.claim_slots(session, run_id, worker=f"w{number}", count=5)
            # All hold their locks until all have claimed: had one to wait for another, nobody would come past this.
            everybody_claimed.wait(30)
            return claims

    outcomes = run_together(8, claim)
    keys = [claim.key for claims in outcomes if isinstance(claims, list) for claim in claims]
    assert len(keys) == len(set(keys)) == 40


# ------------------------------------------------------------------------------------------------------------ renew, release


@pytest.mark.requirement("AD-006")
def test_renew_keeps_what_is_held(session: Session) -> None:
    """Leases that are still held get a new end, in the order given, in one statement; the others are left out."""
    run = make_run(session, scenario_count=4)
    held, expired, taken, done = runs.claim_slots(session, run.id, worker="w", count=4, lease=timedelta(seconds=1))
    runs.record_outcomes(session, [success(done)])
    session.execute(text("UPDATE stemma.run_slots SET attempt = attempt + 1 WHERE scenario_id = :id"), {"id": taken.key.scenario_id})
    session.execute(
        text("UPDATE stemma.run_slots SET lease_expires_at = now() - interval '1 hour' WHERE scenario_id = :id"),
        {"id": expired.key.scenario_id},
    )
    strange = SlotClaim(SlotKey(uuid4(), uuid4(), MODEL), 1, "w", held.lease_expires_at)
    with assert_max_queries(1):
        renewed = runs.renew_slots(session, [done, strange, expired, taken, held], lease=timedelta(hours=1))
    assert [(claim.key, claim.attempt, claim.worker) for claim in renewed] == [(each.key, 1, "w") for each in (expired, held)]
    assert all(claim.lease_expires_at > held.lease_expires_at + timedelta(minutes=50) for claim in renewed)
    assert slot_of(session, held).lease_expires_at == renewed[1].lease_expires_at
    assert kinds(runs.record_outcomes(session, [success(renewed[1])])) == ["STORED"]
    assert runs.renew_slots(session, []) == []
    with pytest.raises(ValidationError):
        runs.renew_slots(session, [held], lease=NOW)


@pytest.mark.requirement("AD-006")
def test_release_gives_back_what_a_worker_holds(session: Session) -> None:
    """A worker that goes gives back its slots in all runs; its attempts count, and a late result of it is refused."""
    first, second = make_run(session, scenario_count=2), make_run(session, scenario_count=2)
    claims = runs.claim_slots(session, worker="w1", count=3)
    (other,) = runs.claim_slots(session, worker="w2")
    assert runs.release_slots(session, worker="w1") == 3
    assert runs.release_slots(session, worker="w1") == 0
    assert kinds(runs.record_outcomes(session, [success(claims[0]), success(other)])) == ["LEASE_LOST", "STORED"]
    again = runs.claim_slots(session, worker="w3", count=9)
    assert {claim.key for claim in again} == {claim.key for claim in claims}
    assert {claim.attempt for claim in again} == {2}
    assert {first.id, second.id} == {claim.key.run_id for claim in again}


# ---------------------------------------------------------------------------------------------------------------- outcomes


@pytest.mark.requirement("AD-006", "VR-104")
def test_an_outcome_is_stored_whole(session: Session) -> None:
    """Transcript, metrics, scores and slot come from one statement, exactly as they were given."""
    run = make_run(session, scenario_count=1)
    (claim,) = runs.claim_slots(session, run.id, worker="w")
    said = "Zero \0, half a pair \ud83d, an escape \x1a and an emoji \N{TROLLEYBUS}."
    asked = Turn(role="user", content="?", at=datetime(2026, 1, 1, tzinfo=UTC))
    content = TranscriptContent(turns=(asked, Turn(role="assistant", content=said)))
    given = TranscriptCreate(
        model=MODEL,
        content=content,
        model_version="gpt-4o-2024",
        metrics=TranscriptMetrics(values={"x": 0.1}, decision="pull"),
        input_tokens=2**40,
        output_tokens=0,
        duration_ms=12,
        cost=Decimal("0.00000001"),
        cost_currency="EUR",
        stop_reason='"quoted" \\ and 日本',
    )
    rationale = ScoreRationale(text="because \0", evidence=(Evidence(turn=1, quote="half"),))
    scores = [
        ScoreCreate(annotator_kind=AnnotatorKind.MODEL, annotator="judge", value=float("nan"), rationale=rationale),
        ScoreCreate(
            annotator_kind=AnnotatorKind.RULE, annotator="judge", value=0.1 + 0.2, label="fair", cost=Decimal("1.5"), cost_currency="USD"
        ),
    ]
    with assert_max_queries(1):
        (result,) = runs.record_outcomes(session, [SlotOutcome(claim=claim, transcript=given, scores=scores)])
    assert (result.key, result.result, result.status) == (claim.key, "STORED", SlotStatus.COMPLETED)
    assert result.transcript_id is not None
    stored = transcripts.get(session, result.transcript_id)
    assert (stored.run_id, stored.scenario_id, stored.model, stored.sample_index) == (run.id, claim.key.scenario_id, MODEL, 0)
    for name in ("model_version", "metrics", "input_tokens", "output_tokens", "duration_ms", "cost", "cost_currency", "stop_reason"):
        assert getattr(stored, name) == getattr(given, name)
    assert (stored.reasoning_tokens, stored.turn_count) == (None, 2)
    assert transcripts.get_content(session, stored.id) == content
    judged = session.execute(text("SELECT annotator_kind, value, label, rationale->>'text', cost FROM stemma.scores ORDER BY 1")).all()
    assert judged[0][0] == "MODEL"
    assert isnan(judged[0][1])
    assert judged[1] == ("RULE", 0.1 + 0.2, "fair", None, Decimal("1.5"))
    slot = slot_of(session, claim)
    assert (slot.status, slot.transcript_id, slot.lease_owner, slot.attempt) == (SlotStatus.COMPLETED, stored.id, None, 1)
    assert slot.finished_at is not None


def test_every_slot_gets_its_own_dialogue(session: Session) -> None:
    """Also among failures, which have none, and whatever control characters are said."""
    run = make_run(session, scenario_count=9)
    claims = runs.claim_slots(session, run.id, worker="w", count=9)
    said = ["", "\x01", "\x01\x01 and \x02", "plain", "\\u0001", "\n", "\x7f"]
    outcomes = [
        failure(claims[0]),
        *(success(claim, answer=answer) for claim, answer in zip(claims[1:8], said, strict=True)),
        failure(claims[8]),
    ]
    results = runs.record_outcomes(session, outcomes)
    stored = [transcripts.get_content(session, result.transcript_id) for result in results[1:8] if result.transcript_id]
    assert [content.turns[-1].content for content in stored] == said
    assert [slot_of(session, claim).transcript_id for claim in claims] == [result.transcript_id for result in results]


@pytest.mark.requirement("AD-006")
def test_a_repeated_delivery_changes_nothing(session: Session) -> None:
    """Delivering an outcome again, in the same call or later, as itself or as another, is a DUPLICATE of the first."""
    run = make_run(session, scenario_count=3, max_attempts=1)
    done, failed, both = runs.claim_slots(session, run.id, worker="w", count=3)
    first = [success(done, JUDGE), failure(failed), success(both), failure(both), success(done, JUDGE)]
    results = runs.record_outcomes(session, [*first, first[0]])
    assert kinds(results) == ["STORED", "STORED", "STORED", "DUPLICATE", "DUPLICATE", "DUPLICATE"]
    assert results[0].transcript_id == results[4].transcript_id == results[5].transcript_id is not None
    assert [result.status for result in results[:4]] == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    before = slots_of(session, run.id)
    again = runs.record_outcomes(session, [success(failed), failure(done), success(both)])
    assert kinds(again) == ["DUPLICATE"] * 3
    assert [result.transcript_id for result in again] == [None, results[0].transcript_id, results[2].transcript_id]
    assert [(slot.status, slot.transcript_id, slot.attempt) for slot in slots_of(session, run.id)] == [
        (slot.status, slot.transcript_id, slot.attempt) for slot in before
    ]
    assert (rows(session, "transcripts"), rows(session, "scores")) == (2, 1)


@pytest.mark.requirement("AD-006")
def test_a_late_result_writes_nothing(session: Session) -> None:
    """Once another worker has the slot, or a retry came between, the first one's result is LEASE_LOST; an expired lease alone is none."""
    run = make_run(session, scenario_count=3)
    claims = runs.claim_slots(session, run.id, worker="w1", count=3)
    expire_leases(session, run.id)
    assert kinds(runs.record_outcomes(session, [success(claims[0])])) == ["STORED"]
    (taken,) = runs.claim_slots(session, run.id, worker="w1")
    late = next(claim for claim in claims if claim.key == taken.key)
    assert kinds(runs.record_outcomes(session, [success(late, JUDGE), failure(late)])) == ["LEASE_LOST"] * 2
    assert kinds(runs.record_outcomes(session, [success(taken)])) == ["STORED"]
    assert kinds(runs.record_outcomes(session, [success(late)])) == ["LEASE_LOST"]
    waiting = next(claim for claim in claims[1:] if claim.key != taken.key)
    assert runs.reconcile(session, run.id).requeued == 1
    (result,) = runs.record_outcomes(session, [success(waiting)])
    assert (result.result, result.status, result.transcript_id) == ("LEASE_LOST", SlotStatus.QUEUED, None)
    forged = SlotClaim(taken.key, taken.attempt + 1, "w9", taken.lease_expires_at)
    assert kinds(runs.record_outcomes(session, [success(forged)])) == ["LEASE_LOST"]
    assert (rows(session, "transcripts"), rows(session, "scores")) == (2, 0)


@pytest.mark.requirement("AD-006")
def test_an_outcome_of_a_deleted_run_is_lost(session: Session) -> None:
    """A run that was deleted while its slots were worked on takes no other outcomes down with it."""
    gone, here = make_run(session, scenario_count=1), make_run(session, scenario_count=1)
    claims = runs.claim_slots(session, worker="w", count=2)
    runs.delete(session, gone.id)
    results = {result.key.run_id: result for result in runs.record_outcomes(session, [success(claim) for claim in claims])}
    assert (results[gone.id].result, results[gone.id].status, results[gone.id].transcript_id) == ("LEASE_LOST", None, None)
    assert results[here.id].result == "STORED"


def test_a_slot_that_was_never_planned_is_not_made(session: Session) -> None:
    """A claim that no claim_slots has given is refused, by recording and by renewing, and leaves no slot behind."""
    run = make_run(session, scenario_count=1)
    (claim,) = runs.claim_slots(session, run.id, worker="w")
    forged = replace(claim, key=replace(claim.key, model="another", sample_index=7))
    calls = [
        lambda: runs.record_outcomes(session, [success(claim), success(forged)]),
        lambda: runs.record_outcomes(session, [failure(forged)]),
        lambda: runs.renew_slots(session, [forged, claim]),
    ]
    for call in calls:
        with pytest.raises(NotFoundError):
            call()
    assert [key_of(slot) for slot in slots_of(session, run.id)] == [claim.key]
    assert kinds(runs.record_outcomes(session, [success(claim)])) == ["STORED"]


@pytest.mark.requirement("AD-006")
def test_results_come_in_the_order_given_a_statement_per_thousand(session: Session) -> None:
    """2,400 outcomes in any order take five statements, three of them for the first 1,000; each result stands where its outcome stood."""
    run = make_run(session, scenario_count=300, models=[f"m{n}" for n in range(8)])
    claims = []
    while more := runs.claim_slots(session, run.id, worker="w", count=1000):
        claims += more
    random.Random(1).shuffle(claims)
    outcomes = [failure(claim) if n % 10 == 0 else success(claim, answer=f"answer {n}") for n, claim in enumerate(claims)]
    with count_queries() as sent:
        results = runs.record_outcomes(session, outcomes)
    assert sent.count == 5
    assert [result.key for result in results] == [claim.key for claim in claims]
    assert [result.status for result in results] == ["QUEUED" if n % 10 == 0 else "COMPLETED" for n in range(2400)]
    previews = dict(session.execute(text("SELECT id, preview FROM stemma.transcripts")).all())
    assert all(previews[result.transcript_id] == f"answer {n}" for n, result in enumerate(results) if n % 10)
    assert runs.record_outcomes(session, []) == []


def test_large_outcomes_go_in_smaller_chunks(session: Session) -> None:
    """Outcomes that are long are sent in several statements, none of them near the limit of a parameter."""
    run = make_run(session, scenario_count=4)
    claims = runs.claim_slots(session, run.id, worker="w", count=4)
    with count_queries() as sent:
        results = runs.record_outcomes(session, [success(claim, answer="x" * 12_000_000) for claim in claims])
    assert kinds(results) == ["STORED"] * 4
    assert sent.count == 2


@pytest.mark.requirement("AD-006", "VR-053")
def test_failures_are_tried_again_with_a_pause(session: Session) -> None:
    """A failed attempt is queued again, later each time, until max_attempts; then the slot is FAILED with the last error."""
    run = make_run(session, scenario_count=1, max_attempts=3)
    pauses = []
    for attempt in (1, 2, 3):
        (claim,) = runs.claim_slots(session, run.id, worker="w")
        assert claim.attempt == attempt
        runs.record_outcomes(session, [failure(claim, f"error {attempt}", retry_in=None)])
        slot = slot_of(session, claim)
        assert (slot.error_code, slot.error_message) == (f"error {attempt}", "no answer")
        assert slot.status == (SlotStatus.FAILED if attempt == 3 else SlotStatus.QUEUED)
        if attempt < 3:
            pauses.append((slot.available_at - slot.queued_at).total_seconds())
            assert not runs.claim_slots(session, run.id, worker="w")
            slot.available_at = slot.queued_at
            session.flush()
    assert 0.5 <= pauses[0] <= 1.5
    assert 1 <= pauses[1] <= 3
    later = make_run(session, scenario_count=1)
    (claim,) = runs.claim_slots(session, later.id, worker="w")
    slot = runs.fail_slot(session, claim, error_code="busy", retry_in=timedelta(minutes=10))
    assert slot.available_at - slot.queued_at == timedelta(minutes=10)


def refused(claim: SlotClaim) -> dict[str, Callable[[], SlotOutcome]]:
    scored = success(claim, JUDGE)
    too_long = TranscriptContent(turns=(Turn(role="user", content="x" * 17_000_000),))
    return {
        "another model": lambda: SlotOutcome(claim=claim, transcript=TranscriptCreate(model="other", content=scored.transcript.content)),
        "another scenario": lambda: success(claim, scenario_id=uuid4()),
        "another sample": lambda: success(claim, sample_index=3),
        "no scenario": lambda: success(claim, scenario_id="nonsense"),
        "nul": lambda: success(claim, model_version="a\0b"),
        "nul in the error": lambda: failure(claim, "a\0"),
        "nul in a score": lambda: success(claim, ScoreCreate(annotator_kind=AnnotatorKind.RULE, annotator="r\0", value=1.0)),
        "surrogate": lambda: success(claim, stop_reason="\ud800"),
        "judged twice": lambda: success(claim, JUDGE, JUDGE),
        "both": lambda: SlotOutcome(claim=claim, transcript=scored.transcript, error_code="x"),
        "neither": lambda: SlotOutcome(claim=claim),
        "negative pause": lambda: failure(claim, retry_in=timedelta(seconds=-1)),
        "too long": lambda: SlotOutcome(claim=claim, transcript=TranscriptCreate(model=MODEL, content=too_long)),
    }


@pytest.mark.parametrize("what", list(refused(SlotClaim(SlotKey(uuid4(), uuid4(), MODEL), 1, "w", datetime.now(UTC)))))
def test_what_cannot_be_stored_is_refused_before_sending(session: Session, what: str) -> None:
    """An outcome that does not fit its claim or its columns is a ValidationError; nothing is sent, and the good one can follow."""
    run = make_run(session, scenario_count=2)
    bad, good = runs.claim_slots(session, run.id, worker="w", count=2)
    with assert_max_queries(0), pytest.raises(DocumentTooLargeError if what == "too long" else ValidationError):
        runs.record_outcomes(session, [success(good), refused(bad)[what]()])
    assert kinds(runs.record_outcomes(session, [success(good)])) == ["STORED"]


def test_a_refused_outcome_leaves_the_transaction_usable(session: Session) -> None:
    """A score of a rubric that does not exist refuses the whole call, and the caller's transaction goes on."""
    run = make_run(session, scenario_count=2)
    claims = runs.claim_slots(session, run.id, worker="w", count=2)
    unknown = ScoreCreate(annotator_kind=AnnotatorKind.RULE, annotator="r", value=1.0, rubric_id=uuid4())
    with pytest.raises(ReferenceNotFoundError):
        runs.record_outcomes(session, [success(claims[0]), success(claims[1], unknown)])
    assert rows(session, "transcripts") == 0
    assert kinds(runs.record_outcomes(session, [success(claim) for claim in claims])) == ["STORED"] * 2


def test_a_transcript_that_is_there_fills_the_slot(session: Session) -> None:
    """Where a transcript was put into a leased slot by other means, the slot gets that one, and the worker's is a DUPLICATE."""
    run = make_run(session, scenario_count=2)
    first, second = runs.claim_slots(session, run.id, worker="w", count=2)
    added = [transcripts.add(session, run.id, transcript(claim, scenario_id=claim.key.scenario_id)) for claim in (first, second)]
    assert {slot.status for slot in slots_of(session, run.id)} == {SlotStatus.RUNNING}
    results = runs.record_outcomes(session, [success(first, JUDGE), failure(second)])
    assert kinds(results) == ["DUPLICATE", "DUPLICATE"]
    assert [result.transcript_id for result in results] == [each.id for each in added]
    assert {(slot.status, slot.transcript_id) for slot in slots_of(session, run.id)} == {("COMPLETED", each.id) for each in added}
    assert rows(session, "scores") == 0
    third = make_run(session, scenario_count=1)
    (claim,) = runs.claim_slots(session, third.id, worker="w")
    there = transcripts.add(session, third.id, transcript(claim, scenario_id=claim.key.scenario_id))
    assert runs.record_outcomes(session, [failure(claim)])[0].status == SlotStatus.QUEUED
    assert runs.reconcile(session, third.id).attached == 1
    assert slot_of(session, claim).transcript_id == there.id


@pytest.mark.requirement("AD-006")
def test_complete_and_fail_one_slot(session: Session) -> None:
    """The calls for one slot return what is stored, again when repeated, and raise when the lease is lost."""
    run = make_run(session, scenario_count=3, max_attempts=1)
    first, second, third = runs.claim_slots(session, run.id, worker="w", count=3)
    stored = runs.complete_slot(session, first, transcript(first))
    assert (stored.preview, stored.model) == ("Pull the lever.", MODEL)
    assert runs.complete_slot(session, first, transcript(first, answer="Something else.")) is stored
    slot = runs.fail_slot(session, second, error_code="refused", error_message="No.")
    assert (slot.status, slot.error_code, slot.error_message) == (SlotStatus.FAILED, "refused", "No.")
    assert runs.fail_slot(session, second, error_code="other") is slot
    assert slot.error_code == "refused"
    with pytest.raises(LeaseLostError):
        runs.complete_slot(session, second, transcript(second))
    runs.release_slots(session, worker="w")
    with pytest.raises(LeaseLostError):
        runs.complete_slot(session, third, transcript(third))
    with pytest.raises(LeaseLostError):
        runs.fail_slot(session, third, error_code="late")
    with pytest.raises(ValidationError):
        runs.fail_slot(session, third, error_code=" ")


# ------------------------------------------------------------------------------------------------------ skip, retry, missing


def test_skip_leaves_out_queued_slots(session: Session) -> None:
    """Queued slots of the scenarios and models given are skipped with the reason; running and finished ones stay."""
    run = make_run(session, scenario_count=3, models=("a", "b"))
    (running,) = runs.claim_slots(session, run.id, worker="w", models=["a"])
    assert runs.skip_slots(session, run.id, models=["a"], reason="too dear") == 2
    assert runs.skip_slots(session, run.id, models=["a"], reason="too dear") == 0
    assert runs.skip_slots(session, run.id, scenario_ids=[running.key.scenario_id], reason="ambiguous") == 1
    report = runs.progress(session, run.id)
    assert (report.skipped, report.running, report.queued) == (3, 1, 2)
    skipped = runs.list_slots(session, run.id, statuses=[SlotStatus.SKIPPED])
    assert sorted(slot.error_message or "" for slot in skipped) == ["ambiguous", "too dear", "too dear"]
    assert runs.skip_slots(session, run.id, reason="enough") == 2
    with assert_max_queries(0), pytest.raises(ValidationError):
        runs.skip_slots(session, run.id, reason=" ")


@pytest.mark.requirement("AD-008")
def test_retry_queues_failed_and_invalidated_slots(session: Session) -> None:
    """Slots that failed with the codes given, and those whose transcript was invalidated, are queued again, with their attempts."""
    run = make_run(session, scenario_count=4, max_attempts=1)
    claims = runs.claim_slots(session, run.id, worker="w", count=4)
    ends = [failure(claims[0], "timeout"), failure(claims[1], "quota"), success(claims[2]), success(claims[3])]
    results = runs.record_outcomes(session, ends)
    assert runs.finish(session, run.id) is run
    assert run.status == RunStatus.PARTIAL
    transcripts.invalidate(session, results[2].transcript_id, reason="wrong prompt")
    assert runs.retry_slots(session, run.id, error_codes=["timeout"], include_invalidated=False) == 1
    assert run.status == RunStatus.RUNNING
    assert runs.retry_slots(session, run.id, error_codes=["nothing"]) == 1
    again = runs.claim_slots(session, run.id, worker="w", count=9)
    assert {(claim.key, claim.attempt) for claim in again} == {(claims[0].key, 2), (claims[2].key, 2)}
    runs.record_outcomes(session, [success(claim) for claim in again])
    assert runs.retry_slots(session, run.id) == 1
    assert runs.finish(session, run.id) is None
    complete_all(session, run.id)
    assert runs.finish(session, run.id) is run
    assert run.status == RunStatus.COMPLETED
    assert not runs.missing_slots(session, run.id)


def test_retry_leaves_a_slot_whose_replacement_is_there(session: Session) -> None:
    """An invalidated transcript that was replaced by hand is no reason to ask the model again."""
    run = make_run(session, scenario_count=1)
    (claim,) = runs.claim_slots(session, run.id, worker="w")
    stored = runs.complete_slot(session, claim, transcript(claim))
    transcripts.invalidate(session, stored.id, reason="typing error")
    replacement = transcripts.add(session, run.id, transcript(claim, scenario_id=claim.key.scenario_id))
    assert runs.retry_slots(session, run.id) == 0
    assert slot_of(session, claim).transcript_id == replacement.id


@pytest.mark.requirement("AD-008")
def test_an_aborted_run_is_resumed(committed_db: Database, committed_workspace: UUID) -> None:
    """A run that was aborted at 21 of 400 outcomes is completed by another worker: 379 are missing, then none."""
    with committed_db.session(committed_workspace) as session:
        run_id = make_run(session, scenario_count=100, models=("a", "b"), samples_per_scenario=2).id
        claims = runs.claim_slots(session, run_id, worker="first", count=50)
    with committed_db.session(committed_workspace) as session:
        runs.record_outcomes(session, [success(claim) for claim in claims[:21]])
        runs.set_status(session, run_id, RunStatus.FAILED, error_code="aborted")
    with committed_db.session(committed_workspace) as session:
        with assert_max_queries(1):
            missing = runs.missing_slots(session, run_id)
        assert len(missing) == 379
        assert missing == sorted(missing)
        assert not {claim.key for claim in claims[:21]} & set(missing)
        runs.release_slots(session, worker="first")
        runs.resume(session, run_id)
        complete_all(session, run_id)
        finished = runs.finish(session, run_id)
        assert finished is not None
        assert finished.status == RunStatus.COMPLETED
        assert runs.missing_slots(session, run_id) == []
        assert rows(session, "transcripts") == 400


def test_list_slots(session: Session) -> None:
    """Slots are listed by key, in pages of one statement, narrowed to statuses."""
    run = make_run(session, scenario_count=3, models=("b", "a"), samples_per_scenario=2)
    keys, cursor = [], None
    for _ in range(3):
        with assert_max_queries(1):
            page = runs.list_slots(session, run.id, limit=5, cursor=cursor)
        keys += [key_of(slot) for slot in page]
        cursor = page.next_cursor
    assert keys == sorted(keys)
    assert len(keys) == 12
    assert not runs.list_slots(session, run.id, statuses=[SlotStatus.COMPLETED, SlotStatus.FAILED]).items
    assert not runs.list_slots(session, uuid4()).items


# --------------------------------------------------------------------------------------------------------------- reconcile


@pytest.mark.requirement("AD-008")
def test_reconcile_puts_slots_right(session: Session) -> None:
    """Transcripts are attached, expired leases queued again or failed, the run finished; a second time nothing is left to do."""
    run = make_run(session, scenario_count=5, max_attempts=2)
    attached, expired, exhausted, leased, done = runs.claim_slots(session, run.id, worker="w", count=5)
    runs.record_outcomes(session, [success(done)])
    there = transcripts.add(session, run.id, transcript(attached, scenario_id=attached.key.scenario_id))
    session.execute(
        text(
            "UPDATE stemma.run_slots SET attempt = CASE WHEN scenario_id = :exhausted THEN 2 ELSE attempt END, "
            "lease_expires_at = now() - interval '1 minute' WHERE run_id = :run_id AND status = 'RUNNING' AND scenario_id <> :leased"
        ),
        {"run_id": run.id, "exhausted": exhausted.key.scenario_id, "leased": leased.key.scenario_id},
    )
    report = runs.reconcile(session, run.id)
    assert (report.attached, report.requeued, report.finished) == (1, 1, False)
    assert [slot_of(session, claim).status for claim in (attached, expired, exhausted, leased, done)] == [
        "COMPLETED", "QUEUED", "FAILED", "RUNNING", "COMPLETED",
    ]  # fmt: skip
    assert slot_of(session, attached).transcript_id == there.id
    again = runs.reconcile(session, run.id)
    assert (again.attached, again.requeued, again.finished) == (0, 0, False)
    runs.record_outcomes(session, [success(leased)])
    complete_all(session, run.id)
    assert runs.reconcile(session, run.id).finished
    assert run.status == RunStatus.PARTIAL
    assert not runs.reconcile(session, run.id).finished


def test_reconcile_of_a_run_without_slots(session: Session) -> None:
    """There is nothing to put right, and nothing is finished."""
    run = make_run(session, scenario_count=0)
    report = runs.reconcile(session, run.id)
    assert (report.attached, report.requeued, report.finished) == (0, 0, False)


# -------------------------------------------------------------------------------------------------------------------- race


@pytest.mark.race
@pytest.mark.slow
@pytest.mark.requirement("AD-006", "VR-075")
def test_400_slots_give_400_outcomes_whatever_happens(committed_db: Database, committed_workspace: UUID) -> None:
    """
    Six workers that crash, outlive their leases, fail, deliver late and deliver again leave exactly one outcome in each of 400 slots.

    A crash is a claim that is never reported; leases are short, so other workers take over while the first one may still deliver.
    """
    with committed_db.session(committed_workspace) as session:
        run_id = make_run(session, scenario_count=100, models=("a", "b"), samples_per_scenario=2, max_attempts=1000).id
    stored: Counter[SlotKey] = Counter()
    finishes: list[int] = []
    lock = threading.Lock()

    def deliver(claims: list[SlotClaim], chance: random.Random) -> None:
        outcomes = [failure(claim) if chance.random() < 0.1 else success(claim, JUDGE) for claim in claims]
        outcomes += chance.sample(outcomes, len(outcomes) // 4)
        chance.shuffle(outcomes)
        with committed_db.session(committed_workspace) as session:
            results = runs.record_outcomes(session, outcomes)
        with lock:
            stored.update(result.key for result in results if result.result == "STORED" and result.transcript_id is not None)

    def work(number: int) -> None:
        chance = random.Random(number)
        kept: list[SlotClaim] = []
        while True:
            with committed_db.session(committed_workspace) as session:
                lease = timedelta(milliseconds=chance.choice((1, 20, 500)))
                claims = runs.claim_slots(session, run_id, worker=f"w{number}", count=chance.randint(1, 12), lease=lease)
            if not claims:
                with committed_db.session(committed_workspace) as session:
                    if runs.reconcile(session, run_id).finished:
                        with lock:
                            finishes.append(number)
                    if runs.get(session, run_id).status != RunStatus.RUNNING:
                        break
                continue
            crashed = [claim for claim in claims if chance.random() < 0.15]
            deliver([claim for claim in claims if claim not in crashed], chance)
            kept += crashed
            if len(kept) > 20:
                # Late: others have had these slots since, or have them now.
                deliver(kept, chance)
                kept = []
        if kept:
            deliver(kept, chance)

    assert run_together(6, work) == [None] * 6
    assert len(finishes) == 1
    with committed_db.session(committed_workspace) as session:
        run = runs.get(session, run_id)
        assert run.status == RunStatus.COMPLETED
        assert runs.progress(session, run_id).completed == 400
        assert not runs.missing_slots(session, run_id)
        assert rows(session, "transcripts") == 400
        assert rows(session, "scores") == 400
        attached = session.execute(text("SELECT count(DISTINCT transcript_id) FROM stemma.run_slots WHERE status = 'COMPLETED'"))
        assert attached.scalar() == 400
    assert len(stored) == 400
    assert set(stored.values()) == {1}


@pytest.mark.race
@pytest.mark.requirement("AD-006")
def test_one_of_ten_deliveries_of_a_claim_is_stored(committed_db: Database, committed_workspace: UUID) -> None:
    """Ten deliveries of the same 300 outcomes at once, each in another order, store each outcome once and deadlock nowhere."""
    with committed_db.session(committed_workspace) as session:
        run_id = make_run(session, scenario_count=300).id
        claims = runs.claim_slots(session, run_id, worker="w", count=300)

    def deliver(number: int) -> list[str]:
        order = random.Random(number).sample(claims, 300)
        with committed_db.session(committed_workspace) as session:
            return kinds(runs.record_outcomes(session, [success(claim) for claim in order]))

    outcomes = run_together(10, deliver)
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert Counter(kind for outcome in outcomes for kind in outcome) == {"STORED": 300, "DUPLICATE": 2700}


@pytest.mark.offline
def test_the_defaults_of_a_lease_are_those_of_the_configuration() -> None:
    """What SQL takes for an absent key is what the document takes."""
    config = RunConfig.load({"models": []})
    assert f", {config.max_attempts})" in _run_slots.MAX_ATTEMPTS
    assert f", {config.lease_seconds})" in _run_slots.LEASE_SECONDS
