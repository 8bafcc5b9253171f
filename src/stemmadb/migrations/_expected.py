"""What the revisions make beside tables: functions, triggers and policies, read from their SQL so that nothing is listed twice."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from stemmadb.migrations import _alembic

_MADE_OR_DROPPED = re.compile(
    r"CREATE (?P<replace>OR REPLACE )?FUNCTION stemma\.(?P<function>\w+)\(.*?AS \$(?P<tag>\w*)\$(?P<body>.*?)\$(?P=tag)\$"
    r"|(?P<trigger>CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER (?P<trigger_name>\w+)\s.*?\sON stemma\.(?P<trigger_table>\w+)\s.*?"
    r"EXECUTE FUNCTION stemma\.\w+\(.*?\))"
    r"|CREATE POLICY (?P<policy>\w+) ON stemma\.(?P<policy_table>\w+)"
    r"|DROP TRIGGER (?:IF EXISTS )?(?P<no_trigger>\w+) ON stemma\.(?P<no_trigger_table>\w+)"
    r"|DROP POLICY (?:IF EXISTS )?(?P<no_policy>\w+) ON stemma\.(?P<no_policy_table>\w+)"
    r"|DROP FUNCTION (?P<no_functions>[^;]+)"
    r"|DROP TABLE (?P<no_tables>[^;]+)",
    re.DOTALL,
)
_NAME = re.compile(r"stemma\.(\w+)")


@dataclass
class Expected:
    """What a database at certain revisions should have."""

    functions: dict[str, list[str]] = field(default_factory=dict)
    """The bodies that a function may have: one, or one for each version of PostgreSQL."""
    triggers: dict[tuple[str, str], str] = field(default_factory=dict)
    """The definition of a trigger, by table and name."""
    policies: set[tuple[str, str]] = field(default_factory=set)
    """Table and name."""


def expected(revisions: Collection[str]) -> Expected:
    """
    Return what these revisions make, the later ones replacing what the earlier ones made.

    Args:
        revisions: in the order in which they run.
    """
    made = Expected()
    for id in revisions:
        for statement in _alembic.statements(id):
            for match in _MADE_OR_DROPPED.finditer(statement):
                _apply(made, match)
    return made


def _apply(made: Expected, match: re.Match[str]) -> None:
    if name := match["function"]:
        made.functions[name] = [*([] if match["replace"] else made.functions.get(name, [])), match["body"]]
    elif match["trigger"]:
        made.triggers[match["trigger_table"], match["trigger_name"]] = match["trigger"]
    elif match["policy"]:
        made.policies.add((match["policy_table"], match["policy"]))
    elif match["no_trigger"]:
        made.triggers.pop((match["no_trigger_table"], match["no_trigger"]), None)
    elif match["no_policy"]:
        made.policies.discard((match["no_policy_table"], match["no_policy"]))
    elif match["no_functions"]:
        for name in _NAME.findall(match["no_functions"]):
            made.functions.pop(name, None)
    elif match["no_tables"]:
        _forget_tables(made, set(_NAME.findall(match["no_tables"])))


def _forget_tables(made: Expected, tables: set[str]) -> None:
    made.triggers = {key: text for key, text in made.triggers.items() if key[0] not in tables}
    made.policies = {key for key in made.policies if key[0] not in tables}
