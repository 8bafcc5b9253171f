"""The entities and documents of evaluation: what the catalogue of a database does not show."""

from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import ForeignKeyConstraint

from stemmadb.documents import Document
from stemmadb.entity import Entity
from stemmadb.errors import CorruptDocumentError, UnknownSchemaVersionError
from stemmadb.evaluation import PACK, documents, entities
from stemmadb.evaluation.documents import (
    AnalysisOutput,
    AnalysisPlan,
    CohortCriteria,
    DefinitionContent,
    Dimension,
    DimensionLevel,
    RubricContent,
    RubricValue,
    RunConfig,
    RunDelta,
    RunProgress,
    ScenarioContent,
    ScoreRationale,
    TranscriptContent,
    TranscriptMetrics,
    load_definition_content,
)
from stemmadb.evaluation.entities import AnalysisResult, AnnotatorKind, Definition, ExperimentStatus, RunStatus, SlotStatus

pytestmark = pytest.mark.offline

TABLES = {entity.__tablename__: entity for entity in PACK.entities}
DOCUMENTS = [kind for kind in vars(documents).values() if isinstance(kind, type) and issubclass(kind, Document) and kind is not Document]
# What jsonb cannot hold is escaped in what is dumped; that it comes back is the promise of stemmadb.documents.
TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def columns(entity: type[Entity], fact: str) -> set[str]:
    return {column.name for column in entity.__table__.columns if column.info[fact]}


def foreign_keys(entity: type[Entity]) -> dict[str, tuple[str, str | None]]:
    """Target and ON DELETE of each foreign key between tenant tables, by the column beside workspace_id."""
    return {
        key.column_keys[1]: (key.elements[1].target_fullname.split(".")[1], key.ondelete)
        for key in entity.__table__.constraints
        if isinstance(key, ForeignKeyConstraint) and len(key.column_keys) > 1
    }


# ----------------------------------------------------------------------------------------------------------------- tables


@pytest.mark.requirement("VR-031", "VR-032", "VR-033", "VR-034", "VR-035", "VR-036", "VR-037", "VR-038", "VR-039", "VR-040", "VR-041")
def test_the_tables() -> None:
    """The ten tables of the evaluation design exist under their names; the pack adds four."""
    designed = {
        *("definitions", "runs", "transcripts", "scenarios", "experiments", "run_comparisons", "analysis_results", "rubrics"),
        *("run_scenario_selection", "cohorts"),
    }
    assert set(TABLES) == designed | {"definition_labels", "experiment_amendments", "run_slots", "scores"}
    assert {entities.__dict__[name] for name in entities.__all__ if name[0].isupper()} >= set(TABLES.values())


def test_bodies_are_fetched_only_when_asked_for() -> None:
    """Lists do not fetch document bodies. Small documents come with their rows."""
    deferred = {name: columns(entity, "deferred") for name, entity in TABLES.items()}
    assert {name: found for name, found in deferred.items() if found} == {
        "definitions": {"content"},
        "scenarios": {"content"},
        "transcripts": {"content"},
        "rubrics": {"content"},
        "analysis_results": {"output"},
    }


@pytest.mark.requirement("VR-031")
def test_a_definition_in_its_order() -> None:
    """Keys first, then the table's own columns, then the times."""
    assert list(Definition.__table__.columns.keys()) == [
        *("workspace_id", "id", "parent_id", "root_id", "depth", "parent_depth", "name", "content", "content_version", "content_hash"),
        *("message", "frozen_at", "version", "created_by_id", "created_at", "updated_at"),
    ]


@pytest.mark.requirement("VR-042")
def test_a_lineage_is_declared() -> None:
    """A definition names its parent together with the tree and the level that the parent must have."""
    (key,) = [key for key in Definition.__table__.foreign_key_constraints if key.name == "definitions_parent_id_fkey"]
    assert key.column_keys == ["workspace_id", "parent_id", "root_id", "parent_depth"]
    assert [element.target_fullname.split(".")[-1] for element in key.elements] == ["workspace_id", "id", "root_id", "depth"]
    assert key.ondelete == "NO ACTION"


@pytest.mark.requirement("VR-043", "VR-044", "VR-045", "VR-046", "VR-047", "VR-049")
def test_what_a_deletion_takes_along() -> None:
    """Children go with what they are part of; what is in use cannot be deleted."""
    assert {name: foreign_keys(entity) for name, entity in TABLES.items() if foreign_keys(entity)} == {
        "definitions": {"parent_id": ("definitions", "NO ACTION")},
        "definition_labels": {"definition_id": ("definitions", "NO ACTION")},
        "scenarios": {"definition_id": ("definitions", "CASCADE")},
        "experiment_amendments": {"experiment_id": ("experiments", "CASCADE")},
        "runs": {"definition_id": ("definitions", "NO ACTION"), "experiment_id": ("experiments", "NO ACTION")},
        "run_scenario_selection": {"run_id": ("runs", "CASCADE"), "scenario_id": ("scenarios", "NO ACTION")},
        "run_slots": {
            "run_id": ("runs", "CASCADE"),
            "scenario_id": ("scenarios", "NO ACTION"),
            "transcript_id": ("transcripts", "NO ACTION"),
        },
        "transcripts": {"run_id": ("runs", "CASCADE"), "scenario_id": ("scenarios", "NO ACTION")},
        "scores": {"transcript_id": ("transcripts", "CASCADE"), "rubric_id": ("rubrics", "NO ACTION")},
        "run_comparisons": {
            "experiment_id": ("experiments", "CASCADE"),
            "baseline_run_id": ("runs", "CASCADE"),
            "comparison_run_id": ("runs", "CASCADE"),
        },
        "analysis_results": {
            "run_id": ("runs", "CASCADE"),
            "rubric_id": ("rubrics", "NO ACTION"),
            "cohort_id": ("cohorts", "NO ACTION"),
        },
    }


def test_generated_columns_are_stored() -> None:
    """Hashes and versions of documents are computed by the database with every write, raw SQL included."""
    generated = {
        (name, column.name): str(column.computed.sqltext)
        for name, entity in TABLES.items()
        for column in entity.__table__.columns
        if column.computed is not None and column.computed.persisted
    }
    version, digest = "stemma.stemma_document_version({})", "stemma.stemma_document_hash({})"
    assert generated == {
        ("definitions", "parent_depth"): "depth - 1",
        ("definitions", "content_version"): version.format("content"),
        ("definitions", "content_hash"): digest.format("content"),
        ("scenarios", "content_version"): version.format("content"),
        ("scenarios", "content_hash"): digest.format("content"),
        ("experiments", "plan_hash"): digest.format("analysis_plan"),
        ("experiment_amendments", "plan_hash"): digest.format("plan"),
        ("runs", "config_version"): version.format("config"),
        ("runs", "config_hash"): digest.format("config"),
        ("transcripts", "content_version"): version.format("content"),
        ("rubrics", "content_hash"): digest.format("content"),
        ("cohorts", "criteria_hash"): digest.format("criteria"),
        ("analysis_results", "output_version"): version.format("output"),
    }


def test_vocabularies_are_text_with_a_check() -> None:
    """The CHECK of a vocabulary lists the members of its StrEnum."""
    checks = {str(item.name): str(getattr(item, "sqltext", "")) for entity in PACK.entities for item in entity.__table__.constraints}
    for name, vocabulary in {
        "runs_status_check": RunStatus,
        "run_slots_status_check": SlotStatus,
        "experiments_status_check": ExperimentStatus,
        "scores_annotator_kind_check": AnnotatorKind,
    }.items():
        assert checks[name].endswith(" IN (" + ", ".join(f"'{member}'" for member in vocabulary) + ")")
    assert AnalysisResult.__mapper__.version_id_col is None


# -------------------------------------------------------------------------------------------------------------- documents


@pytest.mark.requirement("VR-051", "VR-052")
def test_the_content_of_a_definition() -> None:
    """Text and axes; a dimension has values or scored levels."""
    content = DefinitionContent(
        preamble="You are a driver.",
        template="There are [who] on the track.",
        dimensions=(
            Dimension(name="who", values=("one child", "two adults")),
            Dimension(name="harm", levels=(DimensionLevel(score=1, label="bruise"),)),
        ),
        matching_rules=("who != harm",),
    )
    assert content.schema_version == 2
    assert load_definition_content(content.dump()) == content


@pytest.mark.requirement("VR-015", "VR-051")
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, DefinitionContent(preamble="", template="")),
        ({}, DefinitionContent(preamble="", template="")),
        ({"template": None, "dimensions": None}, DefinitionContent(preamble="", template="")),
        ({"template": "x", "schema_version": 0}, DefinitionContent(preamble="", template="x")),
        ('{"preamble": "y"}', DefinitionContent(preamble="y", template="")),
        ({"dimensions": [{"name": "who"}]}, DefinitionContent(preamble="", template="", dimensions=(Dimension(name="who"),))),
    ],
)
def test_content_without_a_version_is_read(raw: Any, expected: DefinitionContent) -> None:
    """Absent strings are empty and absent dimensions none."""
    assert load_definition_content(raw) == expected


@pytest.mark.requirement("VR-015")
@pytest.mark.parametrize("raw", ["text", [], [1], 5, True, {"template": 5}, {"schema_version": "1"}, {"schema_version": -1}])
def test_content_that_is_none_is_told(raw: Any) -> None:
    """Any JSON value may be given; what is no definition is a CorruptDocumentError, never something else."""
    with pytest.raises(CorruptDocumentError):
        load_definition_content(raw)


@pytest.mark.requirement("VR-014")
def test_newer_content_is_not_parsed() -> None:
    """A version above the newest known is refused with both numbers."""
    with pytest.raises(UnknownSchemaVersionError) as caught:
        load_definition_content({"schema_version": 3, "preamble": "", "template": ""})
    assert (caught.value.found, caught.value.known) == (3, 2)


@pytest.mark.requirement("VR-053")
@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("temperature", [0, 0.7, 2, None], [-0.1, 2.01]),
        ("sample_percentage", [0.001, 50, 100, None], [0, -1, 100.5]),
        ("samples_per_scenario", [1, 10], [0, None]),
        ("max_attempts", [1], [0]),
        ("lease_seconds", [1], [0]),
        ("seed", [None, -5], ["x"]),
    ],
)
def test_a_configuration_has_bounds(name: str, good: list[Any], bad: list[Any]) -> None:
    """Temperatures are 0 to 2, samples over 0 to 100 per cent, counts at least 1."""
    for value in good:
        assert getattr(RunConfig(models=("a:b",), **{name: value}), name) == value
    for value in bad:
        with pytest.raises(pydantic.ValidationError):
            RunConfig(models=("a:b",), **{name: value})


def test_defaults_of_a_configuration() -> None:
    """One sample, three attempts, five minutes of lease; no models only from a document without a version."""
    config = RunConfig(models=("a:b",))
    assert (config.samples_per_scenario, config.max_attempts, config.lease_seconds) == (1, 3, 300)
    assert RunConfig.load({"temperature": 1}).models == ()


@pytest.mark.requirement("VR-054")
def test_progress_adds_up() -> None:
    """completed, failed and skipped are together at most total; pending and percent are computed, and not stored."""
    progress = RunProgress(total=8, completed=3, failed=1)
    assert (progress.pending, progress.percent) == (4, 50.0)
    assert RunProgress().percent == 0.0
    assert progress.dump() == {"schema_version": 2, "total": 8, "completed": 3, "failed": 1, "skipped": 0}
    for wrong in ({"total": 1, "completed": 1, "failed": 1}, {"total": -1}):
        with pytest.raises(pydantic.ValidationError):
            RunProgress(**wrong)


@pytest.mark.requirement("VR-055")
@pytest.mark.parametrize("alpha", [0, 1, -0.05, 1.5])
def test_a_plan_has_an_alpha_between_0_and_1(alpha: float) -> None:
    """0 and 1 are refused; a plan without a version has 0.05."""
    with pytest.raises(pydantic.ValidationError):
        AnalysisPlan(alpha=alpha)
    plan = AnalysisPlan.load({})
    assert (plan.alpha, plan.test, plan.coverage, plan.resamples, plan.two_sided) == (0.05, "paired_permutation", "strict", 10_000, True)


def test_keys_of_a_rubric_are_unique() -> None:
    """A rubric with a key twice is refused; one stored as a list is read."""
    harm, care = {"key": "harm", "label": "Harm"}, {"key": "care", "label": "Care", "weight": 2}
    assert [value.weight for value in RubricContent.load([harm, care]).values] == [1.0, 2.0]
    with pytest.raises(pydantic.ValidationError, match="more than once"):
        RubricContent(values=(RubricValue(key="harm", label="a"), RubricValue(key="harm", label="b")))
    assert RubricContent.load(None).values == ()


def test_a_dialogue_without_a_version_is_read() -> None:
    """Its turns were called messages, or were the whole document; other keys are kept."""
    turns = [{"role": "user", "content": "Hello", "name": "ada"}]
    for raw in (turns, {"messages": turns}, {"turns": turns}):
        loaded = TranscriptContent.load(raw)
        assert loaded.turns[0].content == "Hello"
        assert loaded.dump()["turns"][0]["name"] == "ada"
    assert TranscriptContent.load({"messages": [], "model": "x"}).dump() == {"schema_version": 1, "turns": [], "model": "x"}
    assert TranscriptContent.load(None).turns == ()


def test_a_rationale_or_an_output_without_a_version_is_kept_whole() -> None:
    """All keys move under one, so that nothing is taken for something that it was not."""
    assert ScoreRationale.load({"text": 5, "why": "x"}).raw == {"text": 5, "why": "x"}
    assert AnalysisOutput.load({"summary": 1}).summary == {"summary": 1}


@pytest.mark.property
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.__name__)
@given(raw=st.dictionaries(TEXT, JSON_VALUES, max_size=4))
def test_keys_that_nobody_knows_survive(document: type[Document], raw: dict[str, Any]) -> None:
    """Whatever else a document without a version holds is there after it was read and written."""
    known = {*document.model_fields, "messages"}
    raw = {name: value for name, value in raw.items() if name not in known}
    written = document.load(raw).dump()
    kept = next((written[name] for name in ("raw", "summary") if written.get(name) == raw), written)
    assert {name: kept[name] for name in raw} == raw


@pytest.mark.parametrize("document", [TranscriptMetrics, RunDelta, CohortCriteria, ScenarioContent], ids=lambda document: document.__name__)
def test_the_smallest_document_is_read(document: type[Document]) -> None:
    """The column default holds the version alone, or less."""
    assert document.load({}).schema_version == document.newest_version
