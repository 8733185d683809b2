"""What every encoder promises, checked on every encoder, with random weights."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from encoder_kit import apart, pixels, rows, run

from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.base import Encoder, check_inputs, stack_bands, warn_mismatch
from deepsentinel.encoders.registry import registry
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.errors import DeepSentinelWarning, InputError

# Larger ones take seconds each only to be made.
QUICK_PARAMETERS = 30_000_000
MADE_SOON = 15_000_000
CLOSE = 1e-5
FAR = 1e-4


def absent(spec: EncoderSpec) -> list[pytest.MarkDecorator]:
    gone = [name for name in spec.needs if find_spec(name.replace("-", "_")) is None]
    return [pytest.mark.skip(reason=f"{', '.join(gone)} not installed")] if gone else []


def quick() -> set[str]:
    """The first encoder of each architecture, unless it is large: the others differ from it in numbers only."""
    firsts: dict[tuple[str, str], str] = {}
    for spec in registry().values():
        model = str(spec.options.get("model", spec.options.get("version", "")))
        if spec.parameters <= QUICK_PARAMETERS:
            firsts.setdefault((spec.builder, "resnet" if model.startswith("resnet") else model), spec.name)
    return set(firsts.values())


ENCODERS = [
    pytest.param(spec, id=name, marks=[*absent(spec), *([] if name in quick() else [pytest.mark.long])])
    for name, spec in registry().items()
]
SPECS = [pytest.param(spec, id=name) for name, spec in registry().items()]


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Iterator[Encoder]:
    spec: EncoderSpec = request.param
    yield load_encoder(spec.name, "random")
    gc.collect()


def size_of(spec: EncoderSpec) -> tuple[int, int]:
    """Not square where it need not be, and not the size that the encoder was trained at."""
    return (3 if spec.square_only else 2) * spec.patch_px, 3 * spec.patch_px


def all_modes(spec: EncoderSpec) -> list[str]:
    return [mode for mode in ("s1", "s2", "both") if mode in spec.modes]


def test_declares_what_it_is(encoder: Encoder) -> None:
    spec = encoder.spec
    assert sum(parameter.numel() for parameter in encoder.parameters()) == spec.parameters
    assert not encoder.training
    for mode in all_modes(spec):
        tokens = run(encoder, **pixels(spec, mode, 2, size_of(spec)))
        assert tokens.pooled.shape == (2, spec.width)
        assert tokens.pooled.isfinite().all()
        assert (tokens.dense is not None) == spec.dense
        if tokens.dense is not None:
            assert tokens.dense.shape == (2, size_of(spec)[0] // spec.patch_px, 3, spec.width)
            assert tokens.dense.isfinite().all()
        # A vector that says nothing of its window would pass every test of equality below.
        assert not torch.allclose(tokens.pooled[0], tokens.pooled[1])


def test_takes_as_many_channels_as_it_names_bands(encoder: Encoder) -> None:
    for mode in all_modes(encoder.spec):
        inputs = pixels(encoder.spec, mode, 1, size_of(encoder.spec))
        for name, values in inputs.items():
            for wrong in (values[:, :-1], torch.cat([values, values[:, :1]], dim=1)):
                with pytest.raises(InputError, match="channels"):
                    run(encoder, **{**inputs, name: wrong})


def test_refuses_what_it_does_not_declare(encoder: Encoder) -> None:
    with pytest.raises(InputError):
        run(encoder)
    height, width = size_of(encoder.spec)
    there = {"s1": torch.zeros(1, 2, height, width), "s2": torch.zeros(1, len(encoder.spec.s2_bands), height, width)}
    for mode in {"s1", "s2", "both"} - set(encoder.spec.modes):
        with pytest.raises(InputError, match="takes"):
            run(encoder, **{name: values for name, values in there.items() if mode in (name, "both")})


def test_does_the_same_every_time(encoder: Encoder) -> None:
    inputs = pixels(encoder.spec, all_modes(encoder.spec)[-1], 2, size_of(encoder.spec))
    kept = {name: values.clone() for name, values in inputs.items()}
    first, second = run(encoder, **inputs), run(encoder, **inputs)
    assert torch.equal(first.pooled, second.pooled)
    assert all(torch.equal(inputs[name], kept[name]) for name in inputs)


def test_its_random_weights_come_from_the_seed_alone(encoder: Encoder) -> None:
    spec = encoder.spec
    inputs = pixels(spec, all_modes(spec)[-1], 1, size_of(spec))
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    again = load_encoder(spec.name, "random")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert apart(run(encoder, **inputs), run(again, **inputs)) == 0
    if 0 < spec.parameters < MADE_SOON or spec.name == "random-convolutions":
        other = load_encoder(spec.name, "random", seed=1)
        assert apart(run(encoder, **inputs), run(other, **inputs)) > FAR


def test_one_is_encoded_as_among_many(encoder: Encoder) -> None:
    for mode in all_modes(encoder.spec):
        inputs = pixels(encoder.spec, mode, 5, size_of(encoder.spec))
        many = run(encoder, **inputs)
        for row in (0, 4):
            one = run(encoder, **rows(inputs, slice(row, row + 1)))
            assert apart(one, type(many)(many.pooled[[row]], None if many.dense is None else many.dense[[row]])) < CLOSE


def test_the_order_of_channels_counts_and_the_order_of_names_does_not(encoder: Encoder) -> None:
    spec = encoder.spec
    for mode in all_modes(spec):
        inputs = pixels(spec, mode, 2, size_of(spec))
        straight = run(encoder, **inputs)
        named = {}
        for key, names in (("s1", spec.s1_bands), ("s2", spec.s2_bands)):
            if key in inputs:
                named |= {name: inputs[key][:, position] for position, name in enumerate(names)}
        shuffled = dict(reversed(named.items()))
        s1, s2, missing = stack_bands(spec, shuffled)
        assert missing == ()
        assert apart(straight, run(encoder, s1=s1, s2=s2)) == 0
        assert apart(straight, run(encoder, **{key: values.flip(1) for key, values in inputs.items()})) > CLOSE


def test_masked_pixels_are_never_looked_at(encoder: Encoder) -> None:
    spec = encoder.spec
    height, width = size_of(spec)
    # A whole cell, and a corner of another.
    mask = torch.ones(2, height, width, dtype=torch.bool)
    mask[0, : spec.patch_px, : spec.patch_px] = False
    if spec.patch_px > 1:
        mask[0, -1, -1] = False
    for mode in all_modes(spec):
        inputs = pixels(spec, mode, 2, (height, width))
        masks = {f"{name}_mask": mask for name in inputs}
        hidden = {name: torch.where(mask.unsqueeze(1), values, torch.nan) for name, values in inputs.items()}
        clear = run(encoder, **inputs)
        with_any, with_nan = run(encoder, **inputs, **masks), run(encoder, **hidden, **masks)
        assert with_nan.pooled.isfinite().all()
        assert apart(with_any, with_nan) == 0
        assert float((clear.pooled[0] - with_any.pooled[0]).abs().max()) > 0
        second = lambda tokens: type(tokens)(tokens.pooled[1:], None if tokens.dense is None else tokens.dense[1:])  # noqa: E731
        assert apart(second(clear), second(with_any)) < CLOSE


def test_a_window_of_which_nothing_is_known_is_no_harm_to_others(encoder: Encoder) -> None:
    spec = encoder.spec
    size = size_of(spec)
    for mode in all_modes(spec):
        inputs = pixels(spec, mode, 2, size)
        mask = torch.ones(2, *size, dtype=torch.bool)
        mask[0] = False
        masked = run(
            encoder,
            **{name: torch.where(mask.unsqueeze(1), values, torch.nan) for name, values in inputs.items()},
            **{f"{name}_mask": mask for name in inputs},
        )
        # Some vector or none at all, but not a mixture.
        assert masked.pooled[0].isfinite().all() or masked.pooled[0].isnan().all()
        assert masked.dense is None or masked.dense[0].isfinite().all() or masked.dense[0].isnan().all()
        clear = run(encoder, **inputs)
        rest = lambda tokens: type(tokens)(tokens.pooled[1:], None if tokens.dense is None else tokens.dense[1:])  # noqa: E731
        assert apart(rest(masked), rest(clear)) < CLOSE


def test_missing_bands(encoder: Encoder) -> None:
    spec = encoder.spec
    for key, names in (("s1", spec.s1_bands), ("s2", spec.s2_bands)):
        if key not in spec.modes:
            continue
        inputs = pixels(spec, key, 1, size_of(spec))
        gone = names[-1]
        if not spec.any_bands:
            with pytest.raises(InputError, match=f"{gone} is missing"):
                stack_bands(spec, {name: inputs[key][:, position] for position, name in enumerate(names[:-1])})
            continue
        changed = inputs[key].clone()
        changed[:, -1] = 777.0
        assert apart(run(encoder, **{key: changed}), run(encoder, **inputs)) > 0
        if key == "s1" and spec.family in ("galileo", "presto"):
            # VV and VH make one token together: one of them alone is nothing.
            with pytest.raises(InputError, match="nothing is left"):
                run(encoder, **inputs, missing=(gone,))
            continue
        without = run(encoder, **inputs, missing=(gone,))
        assert without.pooled.isfinite().all()
        assert apart(without, run(encoder, **{key: changed}, missing=(gone,))) == 0


def test_sizes(encoder: Encoder) -> None:
    spec = encoder.spec
    mode = all_modes(spec)[0]
    for patch in spec.patch_sizes:
        columns = 3 if spec.square_only else 2
        tokens = run(encoder, **pixels(spec, mode, 1, (3 * patch, columns * patch)), patch_px=patch)
        assert tokens.dense is None or tokens.dense.shape[1:3] == (3, columns)
    if spec.square_only:
        with pytest.raises(InputError, match="square"):
            run(encoder, **pixels(spec, mode, 1, (spec.patch_px, 2 * spec.patch_px)))
        return
    if spec.patch_px > 1:
        with pytest.raises(InputError, match="divide"):
            run(encoder, **pixels(spec, mode, 1, (spec.patch_px, spec.patch_px + 1)))
    with pytest.raises(InputError, match="patches"):
        run(encoder, **pixels(spec, mode, 1, size_of(spec)), patch_px=97)


def test_cells_lie_where_their_pixels_do(encoder: Encoder) -> None:
    """A change in one corner changes the cell of that corner most, beyond what it changes in all of them."""
    spec = encoder.spec
    if not spec.dense or "resnet" in spec.name or "hrnet" in spec.name:
        pytest.skip("no cells, or cells that see far beyond themselves")
    side = spec.patch_px
    for mode in all_modes(spec):
        inputs = pixels(spec, mode, 1, ((4 if spec.square_only else 3) * side, 4 * side))
        changed = {name: values.clone() for name, values in inputs.items()}
        for values in changed.values():
            corner = values[:, :, :side, -side:]
            values[:, :, :side, -side:] = corner.flip(2).flip(3) * 1.3
        dense, moved = run(encoder, **inputs).dense, run(encoder, **changed).dense
        assert dense is not None
        assert moved is not None
        # In deep networks that learnt nothing all cells see nearly the same of everything.
        moved = (moved - dense)[0]
        change = (moved - moved.mean(dim=(0, 1))).norm(dim=-1)
        assert change.argmax() == 3, change


def test_takes_a_month_and_a_place(encoder: Encoder) -> None:
    spec = encoder.spec
    inputs = pixels(spec, all_modes(spec)[0], 2, size_of(spec))
    about = {"month": torch.tensor([0, 6]), "latlon": torch.tensor([[46.0, 8.0], [-33.0, 151.0]])}
    both = run(encoder, **inputs, **about)
    assert both.pooled.isfinite().all()
    one = run(encoder, **rows(inputs, slice(1, 2)), **{name: values[1:] for name, values in about.items()})
    assert apart(one, type(both)(both.pooled[1:], None if both.dense is None else both.dense[1:])) < CLOSE


@pytest.mark.parametrize("spec", SPECS)
def test_right_units_pass_and_wrong_ones_are_refused(spec: EncoderSpec) -> None:
    for mode in all_modes(spec):
        inputs = {name: values.numpy() for name, values in pixels(spec, mode, 1, (32, 32)).items()}
        s1, s2 = inputs.get("s1"), inputs.get("s2")
        check_inputs(spec, s1, s2)
        if s1 is not None:
            for band in range(2):
                for wrong, words in (
                    (10 ** (s1 / 10), "linear"),
                    (s1 * 1e4, "times some factor"),
                    (604 * 10 ** (s1 / 20), "digital"),
                ):
                    mixed = s1.copy()
                    mixed[:, band] = wrong[:, band]
                    with pytest.raises(InputError, match=f"{spec.s1_bands[band]}.*{words}"):
                        check_inputs(spec, mixed, s2)
        if s2 is not None:
            for band, name in enumerate(spec.s2_bands):
                mixed = s2.copy()
                mixed[:, band] /= 10_000
                with pytest.raises(InputError, match=f"{name}.*0..1"):
                    check_inputs(spec, s1, mixed)
            with pytest.raises(InputError, match="negative"):
                check_inputs(spec, s1, (s2 - s2.mean()) / s2.std())


def test_units_of_odd_but_right_pixels_pass() -> None:
    spec = registry()["galileo-nano"]
    nothing = np.full((10, 8, 8), np.nan)
    check_inputs(spec, np.full((2, 8, 8), np.nan), nothing)
    check_inputs(spec, None, np.zeros((10, 8, 8)))
    # Deep water is clipped at 1; a city has some cells above 0 dB.
    check_inputs(spec, None, np.ones((10, 8, 8), dtype=np.uint16))
    city = np.where(np.arange(64).reshape(8, 8) % 3 == 0, 4.0, -6.0)
    check_inputs(spec, np.stack([city, city - 6]), None)


@pytest.mark.parametrize("spec", SPECS)
def test_the_wrong_level_or_backscatter_is_warned_of(spec: EncoderSpec) -> None:
    right = {"level": spec.level, "backscatter": spec.backscatter}
    for key, other in (
        ("level", {"L1C": "L2A", "L2A": "L1C"}),
        ("backscatter", {"sigma0": "gamma0_rtc", "gamma0_rtc": "sigma0"}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_mismatch(spec, {key: right[key]} if right[key] != "any" else {key: "anything"})
            warn_mismatch(spec, {})
        sensor, relevant = ("S2", spec.s2_bands) if key == "level" else ("S1", spec.s1_bands)
        if right[key] == "any" or not relevant:
            continue
        with pytest.warns(DeepSentinelWarning, match=f"{spec.name} was trained on {key} {right[key]}"):
            warn_mismatch(spec, {key: other[right[key]]})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_mismatch(spec, {key: other[right[key]]}, sensors=[name for name in ("S1", "S2") if name != sensor])
