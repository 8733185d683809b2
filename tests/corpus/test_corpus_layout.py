"""What a corpus says of itself on disk: plain zarr understands it, nothing else is overwritten, versions are told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import store_kit
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from store_kit import MASK, S1, S2, layout

from deepsentinel.corpus.layout import FORMAT, ArraySpec, Layout, create_store, shard_path
from deepsentinel.errors import InputError


@given(st.integers(1, 500), st.integers(1, 70))
def test_the_shards_share_out_the_samples(samples: int, slots: int) -> None:
    found = layout(samples, slots)
    members = [number for shard in range(found.shards) for number in found.members(shard)]
    assert members == list(range(samples))
    assert max(len(found.members(shard)) for shard in range(found.shards)) <= slots
    with pytest.raises(InputError, match="no shard"):
        found.members(found.shards)


def test_a_layout_survives_as_text_and_as_the_metadata_of_a_store() -> None:
    found = layout()
    assert Layout.from_json(found.to_json()) == found
    assert Layout.from_zarr(found.files()["zarr.json"], "here") == found
    odd = Layout(3, 2, (ArraySpec("f", "float32", ("sample", "y"), (4,), math.nan),), {"y": [1.5, 2.0, 3.0, 4.0]})
    back = Layout.from_zarr(odd.files()["zarr.json"], "here")
    assert math.isnan(back.arrays[0].fill)
    assert back.coords == odd.coords


def test_plain_zarr_and_xarray_open_an_empty_store(tmp_path: Path) -> None:
    create_store(tmp_path / "c.zarr", layout())
    group = zarr.open_group(tmp_path / "c.zarr", mode="r")
    assert sorted(group.array_keys()) == sorted([spec.name for spec in store_kit.ARRAYS] + ["s2_band", "s1_band"])
    for spec in store_kit.ARRAYS:
        array = group[spec.name]
        assert array.shape == (10, *spec.shape)
        assert array.shards == (4, *spec.shape)
        assert array.chunks == (1, *spec.shape)
        assert array.dtype == spec.dtype
        assert (array[:] == spec.fill).all()
    plain = xr.open_zarr(tmp_path / "c.zarr", chunks=None)
    assert plain.s2.dims == S2.dims
    assert plain.crops_class_map.dims == MASK.dims
    assert plain.s2_band.values.tolist() == ["B02", "B03", "B8A"]
    assert np.isnan(plain.s1.values).all()
    assert plain.attrs["title"] == "By hand"
    # Without the consolidated metadata too: each array has its own.
    alone = zarr.open_array(tmp_path / "c.zarr" / "s1", mode="r")
    assert alone.attrs["scale_factor"] == S1.attrs["scale_factor"]


def test_zarr_would_have_written_the_same_metadata(tmp_path: Path) -> None:
    create_store(tmp_path / "c.zarr", layout())
    theirs = zarr.create_array(
        tmp_path / "theirs",
        shape=(10, *S1.shape),
        shards=(4, *S1.shape),
        chunks=(1, *S1.shape),
        dtype="int16",
        fill_value=-32768,
        compressors=[
            zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
            zarr.codecs.Crc32cCodec(),
        ],
        dimension_names=S1.dims,
        attributes=dict(S1.attrs),
    )
    assert theirs.shape == (10, *S1.shape)
    ours = json.loads((tmp_path / "c.zarr" / "s1" / "zarr.json").read_text())
    assert ours == json.loads((tmp_path / "theirs" / "zarr.json").read_text())


def test_the_same_layout_again_changes_nothing_and_another_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "c.zarr"
    create_store(folder, layout())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    create_store(folder, layout())
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }
    others = {
        "samples is 10, not 11": replace(layout(), samples=11),
        "samples_per_shard is 4": layout(10, 5),
        "arrays are": replace(layout(), arrays=store_kit.ARRAYS[:2]),
        "array 's1' differs": replace(layout(), arrays=(S2, replace(S1, fill=0), *store_kit.ARRAYS[2:])),
        "attribute 'seed' differs": replace(layout(), attrs={**store_kit.ATTRS, "seed": 4}),
        "coords is": replace(layout(), coords={**store_kit.COORDS, "s2_band": ["B02", "B03", "B04"]}),
    }
    for message, other in others.items():
        with pytest.raises(InputError, match=message):
            create_store(folder, other)
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match=r"other things in it \(thesis.docx\)"):
        create_store(tmp_path, layout())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]
    with pytest.raises(InputError, match="is a file"):
        create_store(tmp_path / "thesis.docx", layout())


def test_a_store_that_was_cut_off_while_it_was_made_is_finished(tmp_path: Path) -> None:
    create_store(tmp_path / "c.zarr", layout())
    whole = {path: path.read_bytes() for path in (tmp_path / "c.zarr").rglob("*") if path.is_file()}
    (tmp_path / "c.zarr" / "zarr.json").unlink()
    (tmp_path / "c.zarr" / "s1" / "zarr.json").unlink()
    create_store(tmp_path / "c.zarr", layout())
    assert whole == {path: path.read_bytes() for path in (tmp_path / "c.zarr").rglob("*") if path.is_file()}


def test_versions_and_strangers_are_told_apart() -> None:
    head = json.loads(layout().files()["zarr.json"])

    def said(**attributes: object) -> str:
        node = {**head, "attributes": {**head["attributes"], **attributes}}
        with pytest.raises(InputError) as caught:
            Layout.from_zarr(json.dumps(node).encode(), "c.zarr")
        return str(caught.value)

    newer = said(corpus_format=FORMAT + 1, version="9.9")
    assert f"format {FORMAT + 1}, written by deepsentinel 9.9" in newer
    assert "pip install -U" in newer
    assert "no corpus" in said(corpus_format=None)
    assert "cannot be understood" in said(samples_per_shard="many")
    with pytest.raises(InputError, match="cannot be read"):
        Layout.from_zarr(b"{torn", "c.zarr")
    # A newer version of the package with the same format opens, whatever else it says.
    node = {**head, "attributes": {**head["attributes"], "version": "9.9", "new": {"things": [1]}}}
    assert Layout.from_zarr(json.dumps(node).encode(), "c.zarr").attrs["version"] == "9.9"


def test_a_store_from_elsewhere_names_no_folder_outside_of_it() -> None:
    head = json.loads(layout().files()["zarr.json"])
    members = head["consolidated_metadata"]["metadata"]
    members["../../crops_class_map"] = members.pop("crops_class_map")
    with pytest.raises(InputError, match="names in a corpus are of letters"):
        Layout.from_zarr(json.dumps(head).encode(), "c.zarr")


def test_a_store_that_somebody_wrote_anew_with_other_codecs_says_so(tmp_path: Path) -> None:
    head = json.loads(layout().files()["zarr.json"])
    head["consolidated_metadata"]["metadata"]["s2"]["codecs"] = [{"name": "bytes"}]
    with pytest.raises(InputError, match="'s2' has other codecs"):
        Layout.from_zarr(json.dumps(head).encode(), "c.zarr")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ArraySpec("a", "object", ("sample", "y"), (2,), 0), "of type 'object'"),
        (lambda: ArraySpec("a", "uint8", ("y", "x"), (2,), 0), "dims are 'sample' and one"),
        (lambda: ArraySpec("a", "uint8", ("sample", "y"), (0,), 0), "hold nothing"),
        (lambda: replace(S2, name="../../mine_class_map"), r"called '../../mine_class_map'; names in a corpus"),
        (lambda: Layout(3, 4, (replace(S2, dims=("sample", "../b", "y", "x")),), {"../b": [1, 2, 3]}), "called '../b'"),
        (lambda: Layout(0, 4, (S2,)), "holds nothing"),
        (lambda: Layout(3, 4, (S2, S2)), "each needs a name of its own"),
        (lambda: Layout(3, 4, (S2, ArraySpec("a", "uint8", ("sample", "y"), (5,), 0))), "Dimension 'y' is 16"),
        (lambda: Layout(3, 4, (S2,), {"s2_band": ["B02"]}), "has 1 values for a dimension of 3"),
        (lambda: Layout(3, 4, (S2,), {}, {"when": object()}).files(), "attributes cannot be written"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_shards_lie_where_zarr_looks_for_them(tmp_path: Path) -> None:
    assert shard_path(tmp_path, S2, 7) == tmp_path / "s2" / "c" / "7" / "0" / "0" / "0"
    assert shard_path(tmp_path, MASK, 0) == tmp_path / "crops_class_map" / "c" / "0" / "0" / "0"
