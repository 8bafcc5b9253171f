"""What is concluded from transcripts: rubrics, scores, comparisons, cohorts, results of analyses."""

from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CHAR, BigInteger, CheckConstraint, Index, UniqueConstraint, text

from stemmadb._tables import fields_of, record_html, table_html
from stemmadb.entity import (
    Field,
    Mapped,
    NotBlank,
    Versioned,
    WorkspaceEntity,
    document_field,
    generated_field,
    reference,
    vocabulary_field,
)
from stemmadb.evaluation._comparison_data import coverage_said
from stemmadb.evaluation.documents import AnalysisOutput, CohortCriteria, RubricContent, RunDelta, ScoreRationale
from stemmadb.evaluation.vocabularies import AnnotatorKind


class Rubric(WorkspaceEntity, table=True):
    """One version of a rubric. Its name, version and content never change: a change is a new version."""

    __tablename__ = "rubrics"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        CheckConstraint("btrim(name) <> ''", name="name"),
        CheckConstraint("version >= 1", name="version"),
        CheckConstraint("jsonb_typeof(content) = 'object'", name="content_object"),
        UniqueConstraint("workspace_id", "name", "version"),
        Index("rubrics_created_by_id_idx", "created_by_id"),
    )

    name: Mapped[NotBlank]
    version: Mapped[int] = Field(default=1, ge=1)
    """1, 2, 3, ... under one name. Not an optimistic lock."""
    content: Mapped[RubricContent] = document_field(RubricContent, deferred=True)
    content_hash: Mapped[bytes | None] = generated_field("stemma.stemma_document_hash(content)")
    """SHA-256 of the canonical JSON of the content."""
    is_active: Mapped[bool] = Field(default=True)
    created_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")


class Score(WorkspaceEntity, table=True):
    """
    One judgement of one transcript, by a person, a model or a rule.

    There is one row for each transcript, rubric version, name, kind of annotator and annotator: judging again replaces it explicitly.
    """

    __tablename__ = "scores"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        reference("transcript_id", "transcripts", ondelete="CASCADE"),
        reference("rubric_id", "rubrics", ondelete="NO ACTION"),
        CheckConstraint("btrim(name) <> ''", name="name"),
        CheckConstraint("btrim(annotator) <> ''", name="annotator"),
        CheckConstraint("value IS NOT NULL OR label IS NOT NULL", name="outcome"),
        CheckConstraint("annotator_user_id IS NULL OR annotator_kind = 'HUMAN'", name="human"),
        CheckConstraint("cost IS NULL OR (cost >= 0 AND cost <> 'NaN' AND cost_currency IS NOT NULL)", name="cost"),
        UniqueConstraint(
            *("workspace_id", "transcript_id", "rubric_id", "name", "annotator_kind", "annotator"),
            name="scores_annotation_key",
            postgresql_nulls_not_distinct=True,
        ),
        Index("scores_rubric_id_name_idx", "workspace_id", "rubric_id", "name"),
        Index("scores_name_annotator_idx", "workspace_id", "name", "annotator_kind", text("created_at DESC")),
        Index("scores_annotator_user_id_idx", "annotator_user_id"),
    )

    transcript_id: Mapped[UUID]
    rubric_id: Mapped[UUID | None] = Field(default=None)
    """Names one version of a rubric; None for a plain metric."""
    name: Mapped[NotBlank] = Field(default="overall")
    """A criterion of the rubric, or the name of the metric."""
    annotator_kind: Mapped[AnnotatorKind] = vocabulary_field(AnnotatorKind)
    annotator: Mapped[NotBlank]
    """The id of a user, the identifier of a model, or name and version of a rule."""
    annotator_user_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    """Only for HUMAN."""
    value: Mapped[float | None] = Field(default=None)
    """NaN means judged, but without a number. A score has a value, a label or both."""
    label: Mapped[str | None] = Field(default=None)
    """The verdict in a word."""
    rationale: Mapped[ScoreRationale | None] = document_field(ScoreRationale, default=None)
    duration_ms: Mapped[int | None] = Field(default=None, sa_type=BigInteger())
    cost: Mapped[Decimal | None] = Field(default=None, ge=0, max_digits=19, decimal_places=8)
    """What the judgement cost, in ``cost_currency``."""
    cost_currency: Mapped[str | None] = Field(default=None, pattern="^[A-Z]{3}$", sa_type=CHAR(3))
    """ISO 4217; there whenever there is a cost."""


class RunComparison(WorkspaceEntity, table=True):
    """What changed from a baseline run to another. Stale when the hash of the present inputs is no longer ``input_hash``."""

    __tablename__ = "run_comparisons"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        reference("experiment_id", "experiments", ondelete="CASCADE"),
        reference("baseline_run_id", "runs", ondelete="CASCADE"),
        reference("comparison_run_id", "runs", ondelete="CASCADE"),
        CheckConstraint("baseline_run_id <> comparison_run_id", name="distinct_runs"),
        CheckConstraint("octet_length(plan_hash) = 32 AND octet_length(input_hash) = 32", name="hashes"),
        UniqueConstraint(
            *("workspace_id", "experiment_id", "baseline_run_id", "comparison_run_id"),
            name="run_comparisons_pair_key",
            postgresql_nulls_not_distinct=True,
        ),
        Index("run_comparisons_baseline_run_id_idx", "workspace_id", "baseline_run_id"),
        Index("run_comparisons_comparison_run_id_idx", "workspace_id", "comparison_run_id"),
    )

    experiment_id: Mapped[UUID | None] = Field(default=None)
    baseline_run_id: Mapped[UUID]
    comparison_run_id: Mapped[UUID]
    delta: Mapped[RunDelta] = document_field(RunDelta, default_factory=RunDelta)
    plan_hash: Mapped[bytes | None] = Field(default=None, min_length=32, max_length=32)
    """Of the plan that was applied."""
    input_hash: Mapped[bytes | None] = Field(default=None, min_length=32, max_length=32)
    """SHA-256 of everything that the delta was computed from."""
    code_version: Mapped[str | None] = Field(default=None)
    """Of the code that computed it."""
    notes: Mapped[str | None] = Field(default=None)

    def _repr_html_(self) -> str:
        loaded = fields_of(self)
        delta = loaded.get("delta")
        if not isinstance(delta, RunDelta):
            return record_html(self)
        caption = f"{delta.summary or 'Comparison'}. Run {loaded.get('comparison_run_id')}, baseline {loaded.get('baseline_run_id')}"
        if delta.coverage is not None:
            caption += f". Samples: {coverage_said(delta.coverage)}"
        head = ("metric", "baseline", "comparison", "difference", "p", "effect size", "pairs")
        rows = (
            (name, found.baseline, found.comparison, found.delta, found.p_value, found.effect_size, found.n)
            for name, found in delta.metrics.items()
        )
        return table_html(head, rows, caption=caption)


class Cohort(Versioned, WorkspaceEntity, table=True):
    """A named segment of runs and transcripts. Its members are looked up by the criteria each time."""

    __tablename__ = "cohorts"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        CheckConstraint("btrim(name) <> ''", name="name"),
        UniqueConstraint("workspace_id", "name"),
        Index("cohorts_created_by_id_idx", "created_by_id"),
    )

    name: Mapped[NotBlank]
    description: Mapped[str | None] = Field(default=None)
    criteria: Mapped[CohortCriteria] = document_field(CohortCriteria, default_factory=CohortCriteria)
    criteria_hash: Mapped[bytes | None] = generated_field("stemma.stemma_document_hash(criteria)")
    """SHA-256 of the canonical JSON of the criteria."""
    version: Mapped[int] = Field(default=1, ge=1)
    """Counts saves of this row, for optimistic locking. Starts at 1."""
    created_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")


class AnalysisResult(WorkspaceEntity, table=True):
    """
    The output of one analysis of one run. The highest version is the current one.

    Nothing but the output's representation may change. Stale when the hash of the present inputs is no longer ``input_hash``.
    """

    __tablename__ = "analysis_results"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        reference("run_id", "runs", ondelete="CASCADE"),
        reference("rubric_id", "rubrics", ondelete="NO ACTION"),
        reference("cohort_id", "cohorts", ondelete="NO ACTION"),
        CheckConstraint("analysis_type ~ '^[a-z][a-z0-9_.-]{0,99}$'", name="analysis_type"),
        CheckConstraint("version >= 1", name="version"),
        CheckConstraint("octet_length(input_hash) = 32", name="input_hash"),
        CheckConstraint("jsonb_typeof(output) = 'object'", name="output_object"),
        UniqueConstraint(
            *("workspace_id", "run_id", "analysis_type", "rubric_id", "cohort_id", "version"),
            name="analysis_results_version_key",
            postgresql_nulls_not_distinct=True,
        ),
        Index("analysis_results_rubric_id_idx", "workspace_id", "rubric_id"),
        Index("analysis_results_cohort_id_idx", "workspace_id", "cohort_id"),
        Index("analysis_results_input_hash_idx", "workspace_id", "input_hash"),
    )

    run_id: Mapped[UUID]
    rubric_id: Mapped[UUID | None] = Field(default=None)
    cohort_id: Mapped[UUID | None] = Field(default=None)
    analysis_type: Mapped[str] = Field(pattern=r"^[a-z][a-z0-9_.-]{0,99}$")
    """``basic``, ``win_rate``, or the application's own."""
    version: Mapped[int] = Field(default=1, ge=1)
    """1, 2, 3, ... for one run, type, rubric and cohort. Not an optimistic lock."""
    code_version: Mapped[str | None] = Field(default=None)
    """Of the code that computed it."""
    input_hash: Mapped[bytes] = Field(min_length=32, max_length=32)
    """SHA-256 of everything that the output was computed from."""
    output: Mapped[AnalysisOutput] = document_field(AnalysisOutput, deferred=True)
    output_version: Mapped[int | None] = generated_field("stemma.stemma_document_version(output)")
    """The ``schema_version`` of the stored output; 0 = missing, -1 = malformed."""
