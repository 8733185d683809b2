"""Maps of the demo world as others would have drawn them: CORINE, OpenStreetMap, farmers' declarations."""

from .corine import CORINE_NAMES, corine
from .osm import osm
from .rpg import RPG_CODES, parcels, planted_faults

__all__ = ["CORINE_NAMES", "RPG_CODES", "corine", "osm", "parcels", "planted_faults"]
