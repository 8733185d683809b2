"""The table of encoders: readable without torch, and true to the specs."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from deepsentinel.bands import S1_BANDS, S2_BANDS
from deepsentinel.encoders import list_encoders, load_encoder, registry
from deepsentinel.encoders.registry import find
from deepsentinel.encoders.registry import registry as all_specs
from deepsentinel.encoders.spec import EncoderSpec, Scaling
from deepsentinel.errors import InputError


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_needs_no_torch() -> None:
    """With torch, timm and torchgeo not to be imported at all."""
    said = python("""
        import sys
        for name in ("torch", "timm", "torchgeo"):
            sys.modules[name] = None
        from deepsentinel.encoders import list_encoders
        print(len(list_encoders()))
    """)
    assert int(said) == len(all_specs())


def test_importing_the_package_and_the_table_does_not_import_torch() -> None:
    said = python("""
        import sys, deepsentinel, deepsentinel.encoders
        deepsentinel.encoders.list_encoders()
        print(sorted({"torch", "timm", "torchgeo"} & set(sys.modules)))
    """)
    assert said.strip() == "[]"


def test_an_encoder_of_ours_does_not_import_torchgeo() -> None:
    said = python("""
        import sys
        from deepsentinel.encoders import load_encoder
        load_encoder("galileo-nano", "random")
        print(sorted({"timm", "torchgeo"} & set(sys.modules)))
    """)
    assert said.strip() == "[]"


def test_without_torch_an_encoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import deepsentinel.encoders as package

    monkeypatch.setattr(package, "find_spec", lambda name: None if name in ("torch", "torchgeo") else True)
    with pytest.raises(InputError, match=r"croma-base needs torch, torchgeo: pip install 'deepsentinel\[learn\]'"):
        load_encoder("croma-base")
    monkeypatch.setattr(package, "find_spec", lambda name: None if name == "terratorch" else True)
    with pytest.raises(InputError, match=r"terramind-tiny needs terratorch: pip install terratorch"):
        load_encoder("terramind-tiny")


def test_the_table_says_what_the_specs_say() -> None:
    table = list_encoders().set_index("name")
    assert list(table.index) == list(all_specs())
    for name, spec in all_specs().items():
        row = table.loc[name]
        assert row["s2_bands"].split() == list(spec.s2_bands)
        assert row["modes"].split() == list(spec.modes)
        assert row["sensors"].split() == list(spec.sensors)
        assert (row["width"], row["parameters"], row["patch_px"]) == (spec.width, spec.parameters, spec.patch_px)


@pytest.mark.parametrize("spec", all_specs().values(), ids=lambda spec: spec.name)
def test_a_spec_hangs_together(spec: EncoderSpec) -> None:
    assert set(spec.s1_bands) <= set(S1_BANDS)
    assert set(spec.s2_bands) <= set(S2_BANDS)
    assert len(set(spec.s2_bands)) == len(spec.s2_bands)
    assert ("s1" in spec.modes) == bool(spec.s1_bands)
    assert ("s2" in spec.modes) == bool(spec.s2_bands)
    assert ("both" not in spec.modes) or {"s1", "s2"} <= set(spec.modes)
    # Level 2A has no B10.
    assert spec.level != "L2A" or "B10" not in spec.s2_bands
    assert bool(spec.url or spec.shipped) == bool(spec.file) == bool(spec.license)
    assert not (spec.url and spec.shipped)
    assert spec.url.startswith("https://") or not spec.url
    assert spec.source.startswith("https://")
    assert set(spec.sha256) <= set("0123456789abcdef")


def test_no_two_encoders_share_a_file() -> None:
    files = [spec.file for spec in all_specs().values() if spec.file]
    assert len(files) == len(set(files))


def test_a_name_that_is_none_is_answered_with_near_ones() -> None:
    with pytest.raises(InputError, match="did you mean galileo-"):
        find("gallileo-nano")
    with pytest.raises(InputError, match="list_encoders"):
        load_encoder("resnet")


def test_a_spec_that_contradicts_itself_is_refused() -> None:
    good = find("presto")
    fields = {name: getattr(good, name) for name in EncoderSpec.__dataclass_fields__}
    for wrong in (
        {"modes": ("s3",)},
        {"modes": ()},
        {"patch_px": 3},
        {"s1_scaling": Scaling.divide(1, 3)},
    ):
        with pytest.raises(InputError, match="presto"):
            EncoderSpec(**{**fields, **wrong})


def test_random_is_a_name_and_a_kind_of_weights() -> None:
    by_name = load_encoder("galileo-nano-random").state_dict()
    by_weights = load_encoder("galileo-nano", "random").state_dict()
    assert by_name
    assert all((by_name[key] == by_weights[key]).all() for key in by_weights)
    assert registry() is all_specs()
