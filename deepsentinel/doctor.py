"""`deepsentinel doctor`: what is installed, what is found, and whether the services can be reached and trusted.

Written to be pasted into a bug report: it never prints the value of a credential, only where one was found.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .checkups import Checkup, check_services
from .files import cache_dir, folder_bytes

LIBRARIES = (
    *("numpy", "pandas", "geopandas", "shapely", "pyproj", "rasterio", "xarray"),
    *("odc-geo", "pystac-client", "matplotlib", "scipy"),
)
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "map": ("jupyterlab", "ipywidgets", "ipyleaflet", "geemap"),
    "learn": ("torch",),
    "cloud": ("obstore", "distributed"),
    "gee": ("earthengine-api",),
    "download": ("eodag",),
}


@dataclass(frozen=True)
class Credential:
    """Where a service's key would be looked for."""

    service: str
    """Whom it is for."""
    variables: tuple[str, ...] = ()
    """Names of environment variables; one that ends in `_` stands for all that begin so."""
    files: tuple[str, ...] = ()
    """Files below the home folder."""
    purpose: str = ""
    """What it opens."""
    filled: str = ""
    """What its files say where there is a key in them; for programs that lay empty ones in wait."""


CREDENTIALS = (
    Credential(
        "Planetary Computer",
        ("PC_SDK_SUBSCRIPTION_KEY",),
        (".planetarycomputer/settings.env",),
        "not needed; raises the limits",
    ),
    Credential(
        "S3 keys (CDSE, AWS)",
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
        (".aws/credentials",),
        "needed to read pixels from cdse",
    ),
    Credential(
        "Copernicus Data Space (EODAG)",
        ("EODAG__COP_DATASPACE__AUTH__CREDENTIALS_",),
        (".config/eodag/eodag.yml",),
        "needed for ds.download from cop_dataspace",
        r"(?m)^cop_dataspace:[^\n]*\n(?:(?:[ \t][^\n]*|#[^\n]*)?\n)*?"
        # An empty text is written in YAML as nothing, as two quotes, or as null.
        r"[ \t]+username:[ \t]*(?!(?:\"\s*\"|'\s*'|~|null)\s*(?:#|$))[^\s#]",
    ),
    # Variables of Google's other clients are not named: a key file goes to open_source(credentials=...).
    Credential(
        "Earth Engine",
        (),
        (".config/earthengine/credentials",),
        "needed for earth-engine; made by ee.Authenticate(), or give credentials='key.json'",
    ),
    Credential("NASA Earthdata", ("EARTHDATA_",), (".netrc",), "not used yet"),
    Credential("Hugging Face", ("HF_TOKEN",), (".cache/huggingface/token",), "not needed; raises the limits"),
)


@dataclass(frozen=True)
class Report:
    """What `diagnose` found out."""

    versions: Mapping[str, str]
    """Python, the system, this package and what it stands on; "missing" where it is not installed."""
    extras: Mapping[str, Mapping[str, str]]
    """The same for the optional parts."""
    gpu: str
    """What there is to train on, in words."""
    credentials: Mapping[str, tuple[str, ...]]
    """Service -> where a credential was found. Never what it is."""
    cache: Mapping[str, Any]
    """Folder, bytes of each part, bytes free on that disk."""
    services: tuple[Checkup, ...]
    """How each live service fared."""

    @property
    def ok(self) -> bool:
        """Whether nothing is broken. Being offline is not broken, and neither is a missing extra."""
        installed = "missing" not in self.versions.values()
        return installed and not any(checkup.status in ("differs", "failed") for checkup in self.services)

    def as_dict(self) -> dict[str, Any]:
        """For machines: plain types only."""
        return {"ok": self.ok, **asdict(self)}

    def text(self) -> str:
        """For people: aligned plain text.

        >>> diagnose(services=[]).text().splitlines()[0]
        'Versions'
        """
        lines = ["Versions", *_aligned(self.versions.items()), "", "Optional parts"]
        lines += _aligned((f"[{extra}]", _extra_words(extra, found)) for extra, found in self.extras.items())
        lines += ["", "GPU", f"  {self.gpu}", "", "Credentials (names only, values are never read out)"]
        purposes = {credential.service: credential.purpose for credential in CREDENTIALS}
        lines += _aligned(
            (service, f"found: {', '.join(where)}" if where else f"none ({purposes[service]})")
            for service, where in self.credentials.items()
        )
        lines += ["", "Cache", f"  {self.cache['folder']} (DEEPSENTINEL_CACHE moves it)"]
        parts = {**self.cache["parts"], "free on this disk": self.cache["free_bytes"]}
        lines += _aligned((name, _bytes(size)) for name, size in parts.items())
        lines += ["", "Live services: one known patch read and compared"]
        lines += _aligned((f"{c.service} {c.sensor}", f"{c.verdict} ({c.seconds:.1f} s)") for c in self.services)
        if not self.services:
            lines.append("  not asked")
        lines += ["", _conclusion(self)]
        return "\n".join(lines)


def diagnose(
    *,
    services: Sequence[str] | None = None,
    open_source: Callable[[str], Any] | None = None,
    knock: Callable[[str], None] | None = None,
    timeout_s: float | None = None,
    environment: Mapping[str, str] | None = None,
    home: str | os.PathLike[str] | None = None,
) -> Report:
    """Look at everything that commonly goes wrong. Takes a minute at most, seconds without a network.

    `services` are those to ask (None: all, []: none). The rest of the arguments let a test stand in for the world.

    >>> report = diagnose(services=[])
    >>> report.versions["deepsentinel"] == __import__("deepsentinel").__version__
    True
    """
    from . import __version__

    versions = {"deepsentinel": __version__, "python": platform.python_version(), "system": platform.platform()}
    versions |= {name: _version(name) for name in LIBRARIES}
    options = {} if timeout_s is None else {"timeout_s": timeout_s}
    return Report(
        versions=versions,
        extras={extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()},
        gpu=describe_gpu(),
        credentials=find_credentials(
            os.environ if environment is None else environment, Path.home() if home is None else Path(home)
        ),
        cache=_cache(),
        services=tuple(check_services(services, open_source=open_source, knock=knock, **options)),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def find_credentials(environment: Mapping[str, str], home: Path) -> dict[str, tuple[str, ...]]:
    """Where credentials lie, by service. Files are not opened, but where empty ones are usual.

    >>> find_credentials({"HF_TOKEN": "secret"}, Path("/nowhere"))["Hugging Face"]
    ('HF_TOKEN',)
    """
    found = {}
    for credential in CREDENTIALS:
        where = [
            name
            for name in sorted(environment)
            if environment[name]
            and any(name.startswith(key) if key.endswith("_") else name == key for key in credential.variables)
        ]
        where += [f"~/{file}" for file in credential.files if _holds(home / file, credential.filled)]
        found[credential.service] = tuple(where)
    return found


def _holds(path: Path, filled: str) -> bool:
    try:
        return path.is_file() and (not filled or re.search(filled, path.read_text("utf-8", "replace")) is not None)
    except OSError:
        return False


def describe_gpu() -> str:
    """What there is to train on: by torch where it is installed, else by the driver's own tool.

    >>> isinstance(describe_gpu(), str)
    True
    """
    driver = _driver()
    if find_spec("torch") is None:
        return f"{driver}; torch is not installed" if driver else "none found; torch is not installed"
    import torch  # slow, and only here: nothing else says whether this build of it sees the device

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return f"{names} (torch {torch.__version__})"
    if torch.backends.mps.is_available():
        return f"Apple GPU (torch {torch.__version__})"
    unseen = f"{driver}, which this torch ({torch.__version__}) does not see: install a CUDA build"
    return unseen if driver else f"none found; torch {torch.__version__} runs on the CPU"


def _driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "nvidia-smi is there but fails: the driver is not loaded"
    return "; ".join(line.strip() for line in answer.stdout.splitlines() if line.strip())


def _cache() -> dict[str, Any]:
    folder = cache_dir()
    parts = {entry.name: folder_bytes(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    return {"folder": str(folder), "parts": parts, "free_bytes": shutil.disk_usage(folder).free}


def _extra_words(extra: str, found: Mapping[str, str]) -> str:
    missing = [name for name, number in found.items() if number == "missing"]
    if not missing:
        return ", ".join(f"{name} {number}" for name, number in found.items())
    return f"without {', '.join(missing)}; in a clone of the repository: pip install -e '.[{extra}]'"


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def _aligned(rows: Any) -> list[str]:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in rows]


def _conclusion(report: Report) -> str:
    if "missing" in report.versions.values():
        lost = ", ".join(name for name, number in report.versions.items() if number == "missing")
        return f"Not well: {lost} cannot be found by {sys.executable}; install deepsentinel again"
    bad = [f"{c.service} {c.sensor}" for c in report.services if c.status in ("differs", "failed")]
    if bad:
        return f"Look at {', '.join(bad)}. Everything else is well."
    if report.services and all(c.status == "unreachable" for c in report.services):
        return "All is well here, but no live service could be asked. The demo world works offline: deepsentinel demo"
    return "All is well."
