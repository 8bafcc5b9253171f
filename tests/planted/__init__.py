"""A pack that does everything wrong that the conformance suite looks for. Imported in a process of its own, by ``findings.py``."""

from tests.planted import entities

from stemmadb.packs import Pack

PACK = Pack(
    name="planted",
    branch="planted",
    requires=("accounts", "workspaces"),
    entities=(
        entities.PlantedParent,
        entities.PlantedChild,
        entities.PlantedLoose,
        entities.PlantedTag,
        entities.PlantedTimeless,
        entities.PlantedLeft,
        entities.PlantedSeeded,
    ),
    seeds=("tests.planted.seed:SEEDS",),
)
