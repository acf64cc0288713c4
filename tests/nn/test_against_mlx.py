"""Every layer against MLX's own: the same parameters, the same answer.

On Linux MLX belongs to the tests (`pip install '.[test]'`): without it they fail. Elsewhere they
are skipped.
"""

from __future__ import annotations

import importlib
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from nanocupy import nn, utils

if sys.platform != "linux":
    pytest.skip("MLX is a test dependency on Linux only", allow_module_level=True)
their_mx = importlib.import_module("mlx.core")
their_nn = importlib.import_module("mlx.nn")
their_utils = importlib.import_module("mlx.utils")

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1.5, shape).astype(np.float32)


def twins(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """A layer here and in MLX, with the same random parameters, none of them zero."""
    ours, theirs = make(nn), make(their_nn)
    theirs.eval()
    places = their_utils.tree_flatten(theirs.parameters())
    named = {name: 0.3 + np.abs(numbers(*a.shape)) * 0.4 for name, a in places}
    theirs.load_weights([(name, their_mx.array(a)) for name, a in named.items()])
    ours.load_weights([(name, mx.array(a)) for name, a in named.items()])
    return ours, theirs


def check(call: Callable[[Any, Any], Any], layers: tuple[Any, Any], *inputs: np.ndarray) -> None:
    """call(layer, *arrays) gives the same with both layers."""
    got = call(layers[0], *map(mx.array, inputs))
    want = call(layers[1], *map(their_mx.array, inputs))
    pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
    for mine, other in pairs:
        assert mine.shape == tuple(other.shape)
        assert str(mine.dtype) == str(other.dtype).removeprefix("mlx.core.")
        np.testing.assert_allclose(mine.numpy(), np.array(other), rtol=3e-5, atol=3e-5)


# ---- activations

FUNCTIONS: dict[str, dict[str, Any]] = {
    "celu": {"alpha": 0.7}, "elu": {"alpha": 0.7}, "gelu": {}, "gelu_approx": {},
    "gelu_fast_approx": {}, "glu": {"axis": 0}, "hard_shrink": {"lambd": 0.3},
    "hard_tanh": {"min_val": -0.5}, "hardswish": {}, "leaky_relu": {"negative_slope": 0.2},
    "log_sigmoid": {}, "log_softmax": {"axis": 0}, "mish": {}, "relu": {}, "relu2": {},
    "relu6": {}, "selu": {}, "sigmoid": {}, "silu": {}, "softmax": {"axis": 0},
    "softmin": {"axis": 0}, "softplus": {}, "softshrink": {"lambd": 0.3}, "softsign": {},
    "step": {"threshold": 0.2}, "tanh": {},
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    x = np.concatenate([numbers(3, 6) * 4, np.zeros((1, 6), np.float32)])
    both = getattr(nn, name), getattr(their_nn, name)
    check(lambda function, x: function(x), both, x)
    check(lambda function, x: function(x, **FUNCTIONS[name]), both, x)


MODULES: dict[str, tuple[Any, ...]] = {
    "CELU": (0.5,), "ELU": (0.5,), "GELU": ("fast",), "GLU": (0,), "HardShrink": (0.2,),
    "HardTanh": (), "Hardswish": (), "LeakyReLU": (0.3,), "LogSigmoid": (), "LogSoftmax": (),
    "Mish": (), "PReLU": (6,), "ReLU": (), "ReLU2": (), "ReLU6": (), "SELU": (), "SiLU": (),
    "Sigmoid": (), "Softmax": (), "Softmin": (), "Softplus": (), "Softshrink": (0.2,),
    "Softsign": (), "Step": (0.1,), "Tanh": (), "Identity": (), "Dropout": (0.3,),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_modules_of_one_function(name: str) -> None:
    made = twins(lambda module: getattr(module, name)(*MODULES[name]))
    check(lambda layer, x: layer(x), made, numbers(4, 6))
    check(lambda layer, x: layer(x), twins(lambda m: getattr(m, name)()), numbers(4, 6))


def test_options_that_are_not_there_are_refused() -> None:
    with pytest.raises(TypeError, match="alpha"):
        nn.ELU(beta=1)
    with pytest.raises(TypeError, match="ReLU"):
        nn.ReLU(3)


# ---- layers


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda m: m.Linear(6, 5), (2, 6)),
        (lambda m: m.Linear(6, 5, bias=False), (2, 3, 6)),
        (lambda m: m.RMSNorm(6), (2, 6)),
        (lambda m: m.RoPE(4, traditional=True), (1, 2, 3, 6)),
        (lambda m: m.RoPE(4, scale=0.5, base=100), (1, 2, 3, 6)),
        (lambda m: m.LayerNorm(6), (2, 6)),
        (lambda m: m.LayerNorm(6, bias=False), (2, 6)),
        (lambda m: m.LayerNorm(6, affine=False), (2, 6)),
        (lambda m: m.InstanceNorm(4, affine=True), (2, 3, 5, 4)),
        (lambda m: m.InstanceNorm(4), (2, 3, 4)),
        (lambda m: m.GroupNorm(3, 6), (2, 5, 6)),
        (lambda m: m.GroupNorm(3, 6, pytorch_compatible=True), (2, 5, 2, 6)),
        (lambda m: m.GroupNorm(2, 6, affine=False), (2, 6)),
        (lambda m: m.BatchNorm(4), (3, 4)),
        (lambda m: m.BatchNorm(4, track_running_stats=False), (3, 5, 4)),
        (lambda m: m.BatchNorm(4, affine=False), (3, 2, 2, 4)),
        (lambda m: m.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 9, 4)),
        (lambda m: m.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=2, bias=False), (2, 9, 8, 4)),
        (lambda m: m.Conv3d(2, 3, 2, padding=1), (1, 3, 4, 5, 2)),
        (lambda m: m.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (2, 5, 4)),
        (lambda m: m.ConvTranspose2d(4, 2, 3, stride=2, padding=1), (1, 4, 5, 4)),
        (lambda m: m.ConvTranspose3d(2, 2, 2, bias=False), (1, 2, 3, 2, 2)),
        (lambda m: m.AvgPool1d(2), (2, 5, 3)),
        (lambda m: m.AvgPool2d((3, 2), stride=(1, 2), padding=1), (1, 6, 5, 2)),
        (lambda m: m.AvgPool3d(2, padding=(0, 1, 0)), (1, 4, 4, 4, 1)),
        (lambda m: m.MaxPool1d(3, stride=1, padding=1), (2, 5, 3)),
        (lambda m: m.MaxPool2d(2), (1, 5, 7, 2)),
        (lambda m: m.MaxPool3d([2, 1, 2], stride=1), (1, 3, 3, 3, 2)),
        (lambda m: m.Dropout2d(0.3), (2, 3, 4)),
        (lambda m: m.Dropout3d(0.3), (2, 3, 4, 2)),
        (lambda m: m.SinusoidalPositionalEncoding(8), (2, 3)),
        (lambda m: m.SinusoidalPositionalEncoding(2, cos_first=True, full_turns=True), (4,)),
        (lambda m: m.SinusoidalPositionalEncoding(6, 0.01, 2.0, scale=1.5), (4,)),
        (lambda m: m.RNN(5, 4), (2, 6, 5)),
        (lambda m: m.RNN(5, 4, bias=False, nonlinearity=m.relu), (6, 5)),
        (lambda m: m.GRU(5, 4), (2, 6, 5)),
        (lambda m: m.GRU(5, 4, bias=False), (6, 5)),
        (lambda m: m.LSTM(5, 4), (2, 6, 5)),
        (lambda m: m.LSTM(5, 4, bias=False), (6, 5)),
        (lambda m: m.Sequential(m.Linear(6, 3), m.relu, m.Linear(3, 2)), (2, 6)),
    ],
)  # fmt: skip
def test_layers(make: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    check(lambda layer, x: layer(x), twins(make), numbers(*shape))


def test_recurrent_layers_go_on_from_a_state() -> None:
    x, h, c = numbers(2, 3, 5), numbers(2, 4), numbers(2, 4)
    for make in (lambda m: m.RNN(5, 4), lambda m: m.GRU(5, 4)):
        check(lambda layer, x, h: layer(x, h), twins(make), x, h)
    check(lambda layer, x, h, c: layer(x, h, c), twins(lambda m: m.LSTM(5, 4)), x, h, c)


def test_embeddings() -> None:
    made = twins(lambda m: m.Embedding(7, 4))
    check(lambda layer, x: layer(x), made, np.array([[0, 6], [3, 3]], np.int32))
    check(lambda layer, x: layer.as_linear(x), made, numbers(3, 4))


def test_attention_of_many_heads() -> None:
    made = twins(lambda m: m.MultiHeadAttention(8, 2, 6, 5, value_dims=4, bias=True))
    q, k = numbers(2, 3, 6), numbers(2, 4, 5)
    check(lambda layer, q, k: layer(q, k, k), made, q, k)
    mask = np.where(numbers(3, 4) > 0.5, -1e9, 0).astype(np.float32)
    check(lambda layer, q, k, mask: layer(q, k, k, mask), made, q, k, mask)
    masks = [kind.MultiHeadAttention.create_additive_causal_mask(4) for kind in (nn, their_nn)]
    np.testing.assert_array_equal(masks[0].numpy(), np.array(masks[1]))


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformers(norm_first: bool) -> None:
    made = twins(lambda m: m.Transformer(8, 2, 2, 2, 12, norm_first=norm_first))
    x, y = numbers(2, 5, 8), numbers(2, 3, 8)
    causal = np.triu(np.full((3, 3), -1e9, np.float32), 1)
    check(lambda model, x, y, m: model(x, y, None, m, None), made, x, y, causal)


def test_masks_of_transformers_by_name() -> None:
    x, y, mask = numbers(2, 5, 8), numbers(2, 3, 8), np.triu(np.full((5, 5), -1e9, np.float32), 1)
    for call in (
        lambda model, x, y, m: model.encoder(x, mask=m),
        lambda model, x, y, m: model.encoder.layers[0](x, mask=m),
        lambda model, x, y, m: model.decoder(y, memory=x, x_mask=None, memory_mask=None),
        lambda model, x, y, m: model(
            src=x, tgt=y, src_mask=m, tgt_mask=None, memory_mask=None
        ),
    ):  # fmt: skip
        check(call, twins(lambda m: m.Transformer(8, 2, 1, 1, 12)), x, y, mask)


def test_parts_of_a_transformer_may_be_empty_modules() -> None:
    """Which are false, as empty dicts are."""
    how = {"custom_encoder": nn.Identity(), "custom_decoder": nn.Identity()}
    model = nn.Transformer(8, 2, 1, 1, **how)
    assert model.encoder is how["custom_encoder"] and model.decoder is how["custom_decoder"]


@pytest.mark.parametrize("bias", [True, False])
def test_bilinear_forms(bias: bool) -> None:
    made = twins(lambda m: m.Bilinear(3, 4, 5, bias=bias))
    assert str(made[0]) == str(made[1])
    check(lambda layer, x, y: layer(x, y), made, numbers(2, 6, 3), numbers(2, 6, 4))
    with pytest.raises(ValueError, match="Bilinear"):
        made[0](mx.ones((2, 3)), mx.ones((2, 3)))


SCALES: list[tuple[tuple[int, ...], Any]] = [
    ((2, 5, 3), 2), ((2, 5, 3), 0.5), ((2, 5, 3), 1.7), ((2, 9, 3), 0.3), ((1, 4, 6, 2), (2, 3)),
    ((1, 4, 6, 2), (0.5, 2.5)), ((1, 2, 3, 2, 2), (2, 1, 1.5)),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(("shape", "scale"), SCALES)
def test_upsampling(shape: tuple[int, ...], scale: Any, mode: str) -> None:
    for corners, smooth in ((False, False), (True, False), (False, True)):
        if not (smooth and mode == "nearest"):
            made = twins(lambda m, how=(scale, mode, corners, smooth): m.Upsample(*how))
            assert str(made[0]) == str(made[1])
            check(lambda layer, x: layer(x), made, numbers(*shape))
    whole = nn.Upsample(2)(mx.array([[[1], [2]]]))
    assert whole.dtype == mx.int32 and whole.tolist() == [[[1], [1], [2], [2]]]


def test_layers_with_codes_of_others() -> None:
    ours, theirs = twins(lambda m: m.Sequential(m.Embedding(5, 64), m.Linear(64, 3)))
    for group, bits in ((None, None), (32, 8)):
        pairs = []
        for package, model in ((nn, ours), (their_nn, theirs)):
            table = package.QuantizedEmbedding.from_embedding(model.layers[0], group, bits)
            line = package.QuantizedLinear.from_linear(model.layers[1], group, bits)
            pairs.append((table, line))
        (table, line), (their_table, their_line) = pairs
        tokens = np.array([[0, 4], [3, 3]], np.int32)
        check(lambda layer, x: layer(x), (table, their_table), tokens)
        check(lambda layer, x: layer.as_linear(x), (table, their_table), numbers(3, 64))
        check(lambda layer, x: layer(x), (line, their_line), numbers(3, 64))
    assert nn.QuantizedLinear(64, 3, mode="affine").bits == 4
    for kind in (nn.QuantizedLinear, nn.QuantizedEmbedding):
        with pytest.raises(NotImplementedError, match="mxfp4"):
            kind(64, 64, mode="mxfp4")


@pytest.mark.parametrize("heads", [1, 4, 6, 12])
def test_linear_biases_of_attention(heads: int) -> None:
    made = nn.ALiBi(), their_nn.ALiBi()
    check(lambda layer, scores: layer(scores, 2), made, numbers(2, heads, 3, 5))
    mask = numbers(3, 5)
    check(lambda layer, s, mask: layer(s, mask=mask), made, numbers(1, heads, 3, 5), mask)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nn.LayerNorm(4, eps=0), "eps=0"),
        (lambda: nn.GroupNorm(3, 4), "4 channels in 3 groups"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "3 channels to 4 in 2 groups"),
        (lambda: nn.Conv2d(2, 4, (3, 3, 3)), "expected 2 numbers"),
        (lambda: nn.MaxPool2d(0), "kernel_size=0"),
        (lambda: nn.AvgPool1d(2, padding=-1), "padding=-1"),
        (lambda: nn.AvgPool1d(2)(mx.zeros((2, 3))), "expected 3 dimensions"),
        (lambda: nn.SinusoidalPositionalEncoding(3), "dims=3"),
        (lambda: nn.MultiHeadAttention(5, 2), "num_heads=2"),
        (lambda: nn.Dropout(1.0), "p=1.0"),
        (lambda: nn.RNN(2, 2, nonlinearity="relu"), "nonlinearity='relu'"),
        (lambda: nn.InstanceNorm(2)(mx.zeros((2, 2))), r"\[N, ..., C\]"),
        (lambda: nn.BatchNorm(2)(mx.zeros((2,))), "2 to 4"),
        (lambda: nn.Dropout2d(0.5)(mx.ones(2)), "3 or 4 dimensions"),
        (lambda: nn.Upsample(2, mode="area"), "mode='area'"),
        (lambda: nn.Upsample(0), "scale_factor=0"),
        (lambda: nn.Upsample(2, antialias=True), "antialias"),
        (lambda: nn.Upsample((2, 2))(mx.zeros((1, 2, 1))), r"\[N, ..., C\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


# ---- trees

Pair = namedtuple("Pair", "left right")
TREES: list[Any] = [
    {"a": [1, {"b": 2}], "c": (3,)}, [1, [2, [3]]], {"x": Pair(1, [2, 3])}, {"0": {"1": 4}},
]  # fmt: skip


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_trees(tree: Any) -> None:
    def call(module: Any) -> list[Any]:
        def leaf(node: Any) -> bool:
            return isinstance(node, list)

        return [
            module.tree_flatten(tree),
            module.tree_flatten(tree, destination={}),
            module.tree_flatten(tree, is_leaf=leaf),
            module.tree_unflatten(module.tree_flatten(tree)),
            module.tree_unflatten(module.tree_flatten(tree, destination={})),
            module.tree_map(lambda x, y: (x, y), tree, tree, is_leaf=leaf),
            module.tree_map_with_path(lambda path, x: f"{path}={x}", tree),
            module.tree_reduce(lambda total, x: total + x, tree, 10),
        ]

    assert call(utils) == call(their_utils)


@pytest.mark.parametrize(
    "items",
    [
        [("01", 1), ("1", 2)], [("a.1", 1), ("a.01", 2), ("a.0", 3)], [("0", 1), ("01", 2)],
        [("3", 1), ("0", 2)], [("\u00b2", 1)], [("a..b", 1)], [("a.", 1)], [("a", 1), ("a.b", 2)],
        [("", 1)], [], {}, [("0.a", 1), ("b", 2)],
    ],
    ids=str,
)  # fmt: skip
def test_names_of_trees(items: Any) -> None:
    assert utils.tree_unflatten(items) == their_utils.tree_unflatten(items)


def test_prefixes_and_nothing() -> None:
    for prefix in ("", ".x", "x", ".a.b"):
        tree = {"a": [1, {"b": 2}]}
        assert utils.tree_flatten(tree, prefix) == their_utils.tree_flatten(tree, prefix)
    assert utils.tree_reduce(max, []) == their_utils.tree_reduce(max, []) is None
    with pytest.raises(ValueError, match="a list of 1 with a place"):
        utils.tree_unflatten([("999999999999", 1)])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"a": 1}, {"b": 2}), ([1, None], [None, 2, 3]), ({"a": [1]}, {"a": [2]}), (None, 3),
        ({}, {"a": 1}), ([], {}), ({}, {}), ({"a": {}}, {"a": [1]}), (Pair(1, None), Pair(None, 2)),
        ({"a": 1}, [1]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("merge", [None, lambda x, y: (x, y)])
def test_trees_merge(a: Any, b: Any, merge: Any) -> None:
    def call(module: Any) -> Any:
        try:
            return module.tree_merge(a, b, merge)
        except ValueError:
            return ValueError

    assert call(utils) == call(their_utils)


# ---- modules


def small(module: Any) -> Any:
    class Block(module.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norms = [module.RMSNorm(3), module.LayerNorm(3)]
            self.heads = {"a": module.Linear(3, 2), "b": module.Linear(3, 2, bias=False)}
            self.kinds = ["full", "sliding"]
            self._cache = (mx if module is nn else their_mx).zeros((2,))

    return Block()


def names(tree: Any, flatten: Any) -> list[str]:
    return sorted(name for name, _ in flatten(tree))


def both(call: Callable[[Any, Any, Any, Any], Any]) -> None:
    """call(model, nn, core, utils) gives the same here and in MLX."""
    ours = call(small(nn), nn, mx, utils)
    assert ours == call(small(their_nn), their_nn, their_mx, their_utils)
    assert ours


def test_trees_of_modules_and_parameters() -> None:
    both(lambda model, nn, mx, utils: names(model.parameters(), utils.tree_flatten))
    both(lambda model, nn, mx, utils: sorted(name for name, _ in model.named_modules()))
    both(lambda model, nn, mx, utils: sorted(type(m).__name__ for m in model.modules()))
    for kind in ("children", "leaf_modules"):
        both(
            lambda model, nn, mx, utils, kind=kind: sorted(
                (name, type(module).__name__)
                for name, module in utils.tree_flatten(
                    getattr(model, kind)(), is_leaf=nn.Module.is_module
                )
            )
        )


def test_freezing() -> None:
    def left(how: Callable[[Any], Any]) -> Callable[..., list[str]]:
        def call(model: Any, nn: Any, mx: Any, utils: Any) -> list[str]:
            how(model)
            return [*names(model.trainable_parameters(), utils.tree_flatten), "end"]

        return call

    both(left(lambda model: model.freeze()))
    both(left(lambda model: model.freeze(keys="bias")))
    both(left(lambda model: model.heads["a"].freeze(recurse=False)))
    both(left(lambda model: (model.freeze(), model.unfreeze(keys=["weight"]))))
    both(left(lambda model: (model.freeze(), model.unfreeze())))
    both(left(lambda model: model.apply_to_modules(lambda path, m: path and m.freeze())))
    with pytest.raises(KeyError, match="scale"):
        small(nn).freeze(keys="scale", strict=True)


@pytest.mark.parametrize("how", [(), ("freeze",), ("unfreeze",), ("freeze", "unfreeze")])
def test_freezing_of_what_training_saw(how: tuple[str, ...]) -> None:
    left = []
    for package in (their_nn, nn):
        norm = package.BatchNorm(2)
        for method in how:
            getattr(norm, method)()
        left.append(sorted(norm.trainable_parameters()))
    assert left[0] == left[1] == ([] if how == ("freeze",) else ["bias", "weight"])


def test_updating_applying_and_casting() -> None:
    model = small(nn)
    model.update({"norms": [{}, {"weight": mx.full((3,), 2.0)}]})
    assert model.norms[1].weight.tolist() == [2.0] * 3
    model.apply(lambda x: x + 1)
    assert model.norms[1].weight.tolist() == [3.0] * 3
    model.apply(lambda x: x * 0, lambda m, k, v: m.valid_parameter_filter(m, k, v) and k != "bias")
    assert model.heads["a"].bias.tolist() == [1.0, 1.0]
    model.set_dtype(mx.bfloat16)
    assert {a.dtype.name for _, a in utils.tree_flatten(model.parameters())} == {"bfloat16"}
    new = nn.Linear(3, 4)
    model.update_modules({"heads": {"a": new}})
    assert model.heads["a"] is new
    for wrong in ({"none": mx.zeros(1)}, {"norms": [{"weight": 3.0}]}, {"norms": [{}, {}, {}]}, 1):
        with pytest.raises(ValueError, match="update"):
            model.update(wrong)
        model.update(wrong, strict=False) if wrong != {"norms": [{"weight": 3.0}]} else None
    with pytest.raises(ValueError, match="update"):
        model.update_modules({"heads": {"c": new}})


@pytest.mark.parametrize("how", [{}, {"bits": 8}, {"group_size": 32, "bits": 4}, "one", "own"])
def test_quantising(how: Any) -> None:
    class Wide:
        """Layers whose inputs divide into groups."""

        def __new__(cls, module: Any) -> Any:
            parts = module.Linear(128, 6), module.Embedding(5, 64), module.Linear(64, 3, bias=False)
            return module.Sequential(*parts, module.RMSNorm(64))

    predicates = {
        "one": {"class_predicate": lambda path, layer: path == "layers.1"},
        "own": {
            "class_predicate": lambda path, layer: (
                {"group_size": 64, "bits": 8} if "0" in path else hasattr(layer, "to_quantized")
            )
        },
    }
    given = predicates[how] if isinstance(how, str) else how
    ours, theirs = twins(Wide)
    nn.quantize(ours, **given)
    their_nn.quantize(theirs, **given)
    want = dict(their_utils.tree_flatten(theirs.parameters()))
    got = dict(utils.tree_flatten(ours.parameters()))
    assert got.keys() == want.keys()
    for name, a in got.items():
        np.testing.assert_array_equal(a.numpy(), np.array(want[name]), err_msg=name)
    kinds = [[type(m).__name__ for m in side.layers] for side in (ours, theirs)]
    assert kinds[0] == kinds[1]


def test_what_cannot_be_quantised_is_refused() -> None:
    for wrong, said in (
        ({"class_predicate": lambda path, layer: True}, "the model: Sequential"),
        ({"group_size": 128}, "groups of 128"),
    ):
        with pytest.raises(ValueError, match=said):
            nn.quantize(nn.Sequential(nn.Linear(64, 2)), **wrong)
    with pytest.raises(NotImplementedError, match="mxfp4"):
        nn.quantize(nn.Sequential(nn.Linear(64, 2)), mode="mxfp4")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_go_to_a_file_and_back(tmp_path: Path, suffix: str) -> None:
    model = small(nn).apply(lambda x: x + 3)
    model.save_weights(tmp_path / f"weights{suffix}")
    read = small(nn).load_weights(str(tmp_path / f"weights{suffix}"))
    for (name, a), (_, b) in zip(
        *(utils.tree_flatten(m.parameters()) for m in (model, read)), strict=True
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
    with pytest.raises(ValueError, match="save_weights"):
        model.save_weights(tmp_path / "weights.bin")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [3, None, "weights.bin", ["x"], [("weight",)], [(1, mx.ones(2))], [("weight", 3)],
     [("weight", mx.ones((2, 2))), ("weight", mx.ones((2, 2)))]],
    ids=str,
)  # fmt: skip
def test_what_are_no_weights_is_refused(wrong: Any, strict: bool) -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.tolist()
    with pytest.raises((ValueError, NotImplementedError), match=r"\[load"):
        layer.load_weights(wrong, strict=strict)
    assert layer.weight.tolist() == before


def test_what_only_training_needs_is_refused_by_name() -> None:
    for name in ("value_and_grad", "losses", "init", "average_gradients"):
        with pytest.raises(NotImplementedError, match=name):
            getattr(nn, name)
    with pytest.raises(AttributeError):
        _ = nn.no_such_layer
    model = small(nn)
    assert model.eval() is model and model.train(False) is model and not model.training
    with pytest.raises(NotImplementedError, match="only infers"):
        model.train()
