"""What embeddings are good for: find what looks alike, see what there is, and measure how much they tell apart."""

from __future__ import annotations

from .index import Index, similarity_index
from .maps import ColourBasis, cluster, colour_basis, embedding_change, pca_rgb
from .probes import knn, linear_probe
from .reports import ProbeReport

__all__ = [
    "ColourBasis",
    "Index",
    "ProbeReport",
    "cluster",
    "colour_basis",
    "embedding_change",
    "knn",
    "linear_probe",
    "pca_rgb",
    "similarity_index",
]
