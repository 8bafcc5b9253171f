"""Async twins of ``stemmadb.evaluation.frames``."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.evaluation import frames as _sync
from stemmadb.evaluation.frames import Backend, Frame, OnInvalid

__all__ = ["definitions_df", "runs_df", "transcripts_df", "scores_df", "Backend", "Frame", "OnInvalid"]

definitions_df: Final = twin(_sync.definitions_df)
runs_df: Final = twin(_sync.runs_df)
transcripts_df: Final = twin(_sync.transcripts_df)
scores_df: Final = twin(_sync.scores_df)
