"""
Steps between versions of this pack's documents that Python takes: pure functions of what is stored.

What an older version cannot hold, a step down puts aside under a key of its own: that version keeps what it does not know. It goes with
the value that the older version has in its place, and when that has been changed meanwhile, what was put aside counts no more.
"""

from typing import Any, Final

from stemmadb.documents import Raw

_ALL_RULES: Final = "all_matching_rules"
_WHOLE_SOURCE: Final = "whole_decision_source"


def filled(raw: Raw, **defaults: Any) -> Raw:
    """Return the object with these keys where they are absent or null."""
    return {**raw, **{key: value for key, value in defaults.items() if raw.get(key) is None}}


def under(key: str, raw: Raw) -> Raw:
    """Return an object that holds the whole of another under one key, but for its version."""
    return {key: {name: value for name, value in raw.items() if name != "schema_version"}}


def rules_become_a_list(raw: Raw) -> Raw:
    """1 to 2: one text was all the rules."""
    kept = dict(raw)
    text, aside = kept.get("matching_rules"), kept.pop(_ALL_RULES, None)
    if isinstance(aside, list) and all(isinstance(rule, str) for rule in aside) and text == "\n".join(aside):
        return {**kept, "matching_rules": aside}
    return {**kept, "matching_rules": [] if text in (None, "") else [text]}


def rules_become_a_text(raw: Raw) -> Raw:
    """2 to 1: a rule in each line, and the list aside where that does not tell it."""
    rules = raw.get("matching_rules") or []
    text = "\n".join(rules) if rules else None
    aside = {_ALL_RULES: rules} if len(rules) > 1 or text == "" else {}
    return {**raw, "matching_rules": text, **aside}


def skipped_is_counted(raw: Raw) -> Raw:
    """
    1 to 2: nothing was counted as skipped. What a step down has left counts, as far as there is room.

    Releases that know version 1 have counted on without it.
    """
    total, completed, failed, kept = (raw.get(key, 0) for key in ("total", "completed", "failed", "skipped"))
    # What is no count is refused behind this step, with its place.
    if type(total) is int and type(completed) is int and type(failed) is int and type(kept) is int:
        return {**raw, "skipped": max(0, min(kept, total - completed - failed))}
    return {**raw, "skipped": 0}


def skipped_stays(raw: Raw) -> Raw:
    """2 to 1: version 1 keeps the key, which it does not know."""
    return raw


def source_becomes_an_object(raw: Raw) -> Raw:
    """1 to 2: the source was one text, in which kind and name of the annotator were mixed. The text is the name."""
    kept = dict(raw)
    text, aside = kept.get("decision_source"), kept.pop(_WHOLE_SOURCE, None)
    if isinstance(text, str):
        kept["decision_source"] = aside if isinstance(aside, dict) and aside.get("name") == text else {"name": text}
    return kept


def source_becomes_a_text(raw: Raw) -> Raw:
    """2 to 1: its name, and the whole of it aside where it says more."""
    source = raw.get("decision_source")
    if source is None:
        return raw
    says_more = any(value is not None for key, value in source.items() if key != "name")
    return {**raw, "decision_source": source["name"], **({_WHOLE_SOURCE: source} if says_more else {})}
