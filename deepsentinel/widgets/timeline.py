"""When the sensors looked: a strip with one mark a scene, to be chosen with the mouse or the keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).parent


class Timeline(anywidget.AnyWidget):
    """Sentinel-2 above with cloud shares, Sentinel-1 below with its orbits; `picked` is the scene last chosen."""

    _esm = HERE / "js" / "timeline.js"
    _css = HERE / "css" / "timeline.css"
    scenes = traitlets.List(traitlets.Dict()).tag(sync=True)
    paired = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Scenes that have a partner; the others are drawn faint."""
    chosen = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """The scenes of the chosen pair, joined by a line."""
    picked = traitlets.Unicode().tag(sync=True)

    def show(self, scenes: pd.DataFrame | None, pairs: pd.DataFrame | None) -> None:
        """Draw these scenes; which of them have a partner says the table of pairs."""
        marks = [] if scenes is None else [mark(scene) for scene in scenes.to_dict("records")]
        have = [] if pairs is None else sorted({*pairs["s1_id"], *pairs["s2_id"]})
        with self.hold_sync():
            self.scenes, self.paired, self.picked, self.chosen = marks, have, "", []

    def choose(self, ids: Iterable[str]) -> None:
        """Mark a pair."""
        self.chosen = list(ids)


def mark(scene: Mapping[Any, Any]) -> dict[str, Any]:
    """What the strip needs to know of a scene.

    >>> import pandas as pd
    >>> when = pd.Timestamp("2018-07-04T10:57:00Z")
    >>> mark({"id": "a", "sensor": "S2", "time": when, "cloud_cover": 7.4, "tile": "31UDQ"})["text"]
    '2018-07-04 10:57 Sentinel-2, cloud 7 %, tile 31UDQ'
    """
    time, cloud = scene["time"], scene.get("cloud_cover")
    known = cloud is not None and cloud == cloud
    orbit = scene.get("orbit") or ""
    parts = [f"{time:%Y-%m-%d %H:%M} Sentinel-{scene['sensor'][1]}"]
    if scene["sensor"] == "S2":
        parts.append(f"cloud {cloud:.0f} %" if known else "cloud not known")
        parts += [f"tile {scene['tile']}"] if scene.get("tile") else []
    elif orbit:
        parts.append(str(orbit))
    return {
        "id": str(scene["id"]),
        "sensor": scene["sensor"],
        "time": int(time.timestamp() * 1000),
        "cloud": round(float(cloud), 1) if known and cloud is not None else None,
        "orbit": str(orbit),
        "text": ", ".join(parts),
    }
