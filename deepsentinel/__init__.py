"""deepsentinel: from a rectangle on a map to matched Sentinel-1 and Sentinel-2 pixels and their ground truth.

The public verbs are loaded on first use, so that importing the package costs next to nothing:

    import deepsentinel as ds

    src = ds.open_source("demo")
    scenes = src.search(src.area, "2018-05-01", "2018-08-31")
    pairs = ds.pair(scenes, aoi=src.area, max_days=3)
    patch = src.read(pairs.iloc[0], ds.geobox(src.area))
    masks = ds.rasterize(ds.read_labels(src.labels["corine"]), like=patch)
    ds.show(patch.merge(masks))
"""

from __future__ import annotations

__version__ = "0.1.0"

# verb -> the module it lives in. No verb shares its name with a module: once that module was imported, Python would
# put the module in the verb's place.
_VERBS = {
    "Map": "widgets.map",
    "audit_splits": "corpus.audit",
    "boxes": "masks.objects",
    "build_corpus": "corpus.build",
    "check_examples": "learn.example_scores",
    "check_patch": "contract",
    "class_fractions": "masks.fractions",
    "classify": "learn.classifying",
    "cluster": "similarity",
    "compare": "learn.comparing",
    "cover": "land",
    "cutouts": "figures.cutouts",
    "describe": "figures.corpus",
    "download": "sources.download",
    "embed": "embedding",
    "embedding_change": "similarity",
    "evaluate": "learn.evaluation",
    "few_shot": "learn.fewshot",
    "finetune": "learn.finetuning",
    "geobox": "aoi",
    "knn": "similarity",
    "label_report": "masks.report",
    "label_vector": "masks.fractions",
    "linear_probe": "similarity",
    "list_encoders": "encoders",
    "load_encoder": "encoders",
    "load_model": "learn.model",
    "make_labels": "labels.making",
    "match_rate": "pairing",
    "open_corpus": "corpus.store",
    "open_source": "sources",
    "outlines": "figures.overlays",
    "overlay": "figures.overlays",
    "pair": "pairing",
    "parcel_sizes": "masks.windows",
    "parcel_window": "masks.windows",
    "patch_of": "corpus.patches",
    "pca_rgb": "similarity",
    "plan_corpus": "corpus.plan",
    "polygonize": "masks.polygons",
    "predict": "prediction",
    "pretrain": "learn.pretraining",
    "publish": "corpus.publish",
    "rasterize": "masks",
    "read_label_raster": "labels.rasters",
    "read_labels": "labels",
    "read_point": "sources.points",
    "ready_encoders": "encoders.ready",
    "sample_land": "land",
    "save_figure": "figures.saving",
    "save_labels": "labels.making",
    "save_map": "export_map",
    "select": "pairing",
    "show": "figures",
    "similarity_index": "similarity",
    "split": "corpus.splits",
    "suggest": "learn.active",
    "value_at": "masks.lookup",
}

__all__ = ["__version__", *_VERBS]


def __getattr__(name: str) -> object:
    if name not in _VERBS:
        raise AttributeError(f"module 'deepsentinel' has no attribute {name!r}; it has {', '.join(sorted(_VERBS))}")
    from importlib import import_module

    verb = getattr(import_module(f"{__name__}.{_VERBS[name]}"), name)
    globals()[name] = verb
    return verb


def __dir__() -> list[str]:
    return sorted({*globals(), *_VERBS} - {"annotations"})


def _show_cards() -> None:
    """In a notebook patches, tables and corpora show themselves as cards."""
    import sys

    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        from .displays import install

        install(shell)


_show_cards()
