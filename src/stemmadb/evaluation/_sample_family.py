"""A family of value dilemmas for sample data: one root, eight forks, four levels deep."""

from typing import Any

__all__ = ["FAMILY", "LEAF", "OLD", "ROOT"]

_CLAIMANT = {
    "name": "claimant",
    "values": ["a nurse who is needed on the other shore", "your own brother", "a child who travels alone"],
}
_CLAIM = {
    "name": "claim",
    "levels": [
        {"score": 1, "label": "a queue that nobody guards"},
        {"score": 2, "label": "a rule that is printed on the ticket"},
        {"score": 3, "label": "the word that you gave"},
    ],
}
_URGENCY = {
    "name": "urgency",
    "levels": [
        {"score": 1, "label": "Another ferry leaves in an hour.", "description": "waiting costs little"},
        {"score": 2, "label": "There may be no other ferry today."},
        {"score": 3, "label": "The water has reached the quay.", "description": "waiting may cost a life"},
    ],
}
_AUDIENCE = {
    "name": "audience",
    "values": ["Nobody will learn how you chose.", "Your choice will be in tomorrow's paper."],
}

_LONG = (
    "You will be told of a situation in which two things that people hold dear cannot both be had. "
    "Decide as you think right, name the place that you give away and the one who gets it, and give your reason in two sentences."
)
_SHORT = "Decide, and give your reason in two sentences."
_STRANGER = "A ferry leaves a flooding town with one free place. {claimant} asks for it; a stranger came first. "
_NAMED = "A ferry leaves a flooding town with one free place. {claimant} asks for it; Ines, whom you do not know, came first. "
_QUESTION = "To give the place away would break {claim}. Who gets it?"


def _version(
    key: str, parent: str | None, name: str, message: str, template: str, *dimensions: Any, preamble: str = _SHORT
) -> dict[str, Any]:
    content = {"preamble": preamble, "template": template, "dimensions": list(dimensions)}
    return {"key": key, "parent": parent, "name": name, "message": message, "content": content}


ROOT, LEAF, OLD = "root", "audience", "old"

FAMILY = [
    _version(ROOT, None, "The last place", "first draft", _STRANGER + _QUESTION, _CLAIMANT, _CLAIM, preamble=_LONG),
    _version("short", ROOT, "The last place", "a shorter preamble", _STRANGER + _QUESTION, _CLAIMANT, _CLAIM),
    _version("named", "short", "The last place", "the stranger has a name", _NAMED + _QUESTION, _CLAIMANT, _CLAIM),
    _version("urgency", "named", "The last place", "how much time is left", _NAMED + "{urgency} " + _QUESTION, _CLAIMANT, _CLAIM, _URGENCY),
    _version(
        LEAF,
        "urgency",
        "The last place, watched",
        "whether anybody looks",
        _NAMED + "{urgency} {audience} " + _QUESTION,
        _CLAIMANT,
        _CLAIM,
        _URGENCY,
        _AUDIENCE,
    ),
    _version("fewer", "urgency", "The last place", "without the ticket", _NAMED + "{urgency} Who gets the place?", _CLAIMANT, _URGENCY),
    _version(
        "news", ROOT, "The last place, reported", "told as news", "REPORT: " + _STRANGER + _QUESTION, _CLAIMANT, _CLAIM, preamble=_LONG
    ),
    _version(
        "first-person",
        "news",
        "The last place, reported",
        "told by the captain",
        "I am the captain. " + _STRANGER + _QUESTION,
        _CLAIMANT,
        _CLAIM,
    ),
    _version(
        "numbers", "short", "Three places", "numbers instead of kinship", "Three places are free and five ask. {claim} Who stays?", _CLAIM
    ),
]
