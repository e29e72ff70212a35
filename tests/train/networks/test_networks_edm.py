"""The EDM networks: reference outputs, names and shapes, a second implementation, finite differences, precision."""

from __future__ import annotations

import json

import pytest
import torch
from edm_formula import (
    FIXTURES,
    Formula,
    down2,
    fixture_config,
    formula_weights,
    heun18,
    load_formula_weights,
    up2,
)
from safetensors.torch import load_file

from ambient_theory.shared.errors import UsageError
from ambient_train.networks import ARCHITECTURES
from ambient_train.networks.dropout import dropout_context
from ambient_train.networks.execution import recompute_blocks
from ambient_train.networks.layers import Conv2d, GroupNorm, attention_qkv
from ambient_train.networks.precond import EDMPrecond

torch.set_num_threads(1)

SONG = {"model_type": "SongUNet", "img_resolution": 16, "in_channels": 3, "out_channels": 3, "model_channels": 8}
ADM = {"model_type": "DhariwalUNet", "img_resolution": 16, "in_channels": 3, "out_channels": 3, "model_channels": 32}
CONFIGURATIONS = {
    "three levels, two blocks": {**SONG, "channel_mult": [1, 2, 2], "num_blocks": 2, "attn_resolutions": [8, 4]},
    "labels, wide embedding": {**SONG, "channel_mult": [2, 1], "num_blocks": 1, "label_dim": 4, "channel_mult_emb": 2},
    "residual, box filter": {**SONG, "encoder_type": "residual", "channel_mult": [1, 1, 2], "num_blocks": 1},
    "residual, tent filter, fourier": {
        **SONG,
        "encoder_type": "residual",
        "embedding_type": "fourier",
        "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1],
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "augment_dim": 9,
    },
    "standard encoder, six taps": {**SONG, "resample_filter": [1, 5, 10, 10, 5, 1], "channel_mult": [1, 2]},
    "one level": {**SONG, "channel_mult": [2], "num_blocks": 1, "attn_resolutions": []},
    "adm, three levels": {**ADM, "channel_mult": [1, 2, 4], "num_blocks": 1, "attn_resolutions": [8, 4]},
    "adm, labels and augmentation": {
        **ADM,
        "channel_mult": [2, 4],
        "num_blocks": 2,
        "attn_resolutions": [16],
        "label_dim": 5,
        "augment_dim": 9,
    },
}


def build(config: dict) -> torch.nn.Module:
    arguments = dict(config)
    network = ARCHITECTURES[arguments.pop("model_type")](**arguments)
    network.load_state_dict(formula_weights(network.state_dict()), strict=False)
    return network.eval()


def inputs(config: dict, dtype: torch.dtype = torch.float64, batch: int = 2) -> list:
    g = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    r = config["img_resolution"]
    labels, augment = config.get("label_dim", 0), config.get("augment_dim", 0)
    return [
        draw(batch, config["in_channels"], r, r),
        draw(batch),
        torch.eye(labels, dtype=dtype)[:batch] if labels else None,
        draw(batch, augment) if augment else None,
    ]


@pytest.mark.parametrize("name", ["ddpmpp", "ncsnpp", "adm"])
def test_denoised_and_samples_equal_the_reference(name: str) -> None:
    network = EDMPrecond(**fixture_config(name)).eval()
    load_formula_weights(network)
    io = load_file(FIXTURES / f"{name}.io.safetensors")
    labels = io.get("class_labels")
    with torch.no_grad():
        augmented = network(io["x"], io["sigma"], labels, io["augment_labels"])
        plain = network(io["x"], io["sigma"], labels)
        samples = heun18(network, io["latents"], labels)
    torch.testing.assert_close(augmented, io["denoised"], atol=1e-5, rtol=0)
    torch.testing.assert_close(plain, io["denoised_no_augment"], atol=1e-5, rtol=0)
    torch.testing.assert_close(samples, io["heun18_samples"], atol=1e-4, rtol=0)
    assert (augmented - plain).abs().max() > 1e-3  # the tolerance can tell the two apart


@pytest.mark.parametrize("name", ["ddpmpp-cifar10", "ncsnpp-celeba64", "adm-imagenet64"])
def test_full_size_names_and_shapes_equal_the_reference(name: str) -> None:
    reference = json.loads((FIXTURES / "full_size_state_dicts.json").read_text())[name]
    with torch.device("meta"):
        network = EDMPrecond(**reference["config"])
    ours = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert list(ours.items()) == list(reference["state_dict"].items())
    assert sum(p.numel() for p in network.parameters()) == reference["parameters"]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_any_configuration_equals_the_plain_formula(name: str) -> None:
    config = CONFIGURATIONS[name]
    network = build(config).double()
    arguments = inputs(config)
    with torch.no_grad():
        expected = Formula(network.state_dict(), config)(*arguments)
        torch.testing.assert_close(network(*arguments), expected, atol=1e-9, rtol=1e-9)
        network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(*arguments), expected, atol=1e-9, rtol=1e-9)
    assert expected.std() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["three levels, two blocks", "adm, labels and augmentation"])
def test_weights_that_lie_contiguously_are_brought_to_the_layout_of_the_images_with_their_cast(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they lie where they are split over ranks: every convolution is channels-last, so the numbers are the same."""
    convolve, layouts = torch.nn.functional.conv2d, []

    def watched(x: torch.Tensor, weight: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        layouts.append([t.is_contiguous(memory_format=torch.channels_last) for t in (x, weight)])
        return convolve(x, weight, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "conv2d", watched)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        network = build(CONFIGURATIONS[name]).float().to(memory_format=layout)  # type: ignore[call-overload]
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            y = network(*(t if t is None else t.float() for t in inputs(CONFIGURATIONS[name])))
        y.float().square().sum().backward()
        found.append([y.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    assert len(layouts) > 10
    assert all(all(pair) for pair in layouts)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["residual, tent filter, fourier", "adm, labels and augmentation"])
def test_gradients_equal_finite_differences(name: str) -> None:
    config = CONFIGURATIONS[name]
    network = build(config).double()
    x, *rest = inputs(config)
    x.requires_grad_(True)
    g = torch.Generator().manual_seed(2)
    probe = torch.randn(x.shape, generator=g, dtype=torch.float64)

    def value() -> torch.Tensor:
        return (network(x, *rest) * probe).sum()

    leaves = [x, *network.parameters()]
    gradients = torch.autograd.grad(value(), leaves)
    directions = [torch.randn(p.shape, generator=g, dtype=torch.float64) * p.detach().abs().mean() for p in leaves]
    slope = sum((a * b).sum() for a, b in zip(gradients, directions, strict=True))
    h = 1e-5
    with torch.no_grad():
        ends = []
        for step in (h, -2 * h):
            for p, direction in zip(leaves, directions, strict=True):
                p.add_(direction, alpha=step)
            ends.append(value())
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * h), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
@pytest.mark.parametrize("kernel", [0, 1, 3])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_resampling_convolution_equals_its_definition(taps: list[int], kernel: int, direction: str) -> None:
    torch.manual_seed(3)
    layer = Conv2d(4, 6 if kernel else 4, kernel, **{direction: True}, resample_filter=taps).double()
    if kernel:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    expected = up2(x, taps) if direction == "up" else down2(x, taps, (len(taps) - 1) // 2)
    if kernel:
        expected = torch.nn.functional.conv2d(expected, layer.weight, layer.bias, padding=kernel // 2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("shape", [(2, 8, 4, 4), (3, 12, 5, 3), (2, 128, 2, 2)])
def test_channels_last_group_norm_has_the_gradients_of_group_norm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(5)
    layer = GroupNorm(shape[1]).double()
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = (torch.randn(shape, dtype=torch.float64) * 2 + 3).to(memory_format=torch.channels_last).requires_grad_()
    probe = torch.randn(shape, dtype=torch.float64)
    leaves = (x, layer.weight, layer.bias)
    y = layer(x)
    assert "ChannelsLast" in type(y.grad_fn).__name__
    reference = torch.nn.functional.group_norm(x.contiguous(), layer.groups, layer.weight, layer.bias, layer.eps)
    torch.testing.assert_close(y, reference)
    ours = torch.autograd.grad((y * probe).sum(), leaves)
    theirs = torch.autograd.grad((reference * probe).sum(), leaves)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    low = torch.autograd.grad((layer.float()(x.bfloat16()) * probe.bfloat16()).sum(), leaves)
    for a, b in zip(low, theirs, strict=True):
        assert (a - b).abs().max() < 0.03 * b.abs().max()


def test_sdpa_equals_explicit_softmax() -> None:
    torch.manual_seed(4)
    heads, width = 3, 24
    x, w, b = torch.randn(2, width, 4, 5), torch.randn(3 * width, width), torch.randn(3 * width)
    q, k, v = attention_qkv(x, w, b, heads)
    ours = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    qkv = torch.einsum("oc,bchw->bohw", w, x) + b[:, None, None]
    eq, ek, ev = qkv.reshape(2, heads, width // heads, 3, 20).unbind(3)
    weights = torch.softmax(torch.einsum("nhcq,nhck->nhqk", eq, ek) / (width // heads) ** 0.5, dim=-1)
    explicit = torch.einsum("nhqk,nhck->nhqc", weights, ev)
    torch.testing.assert_close(ours, explicit, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["ddpmpp", "ncsnpp", "adm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_stays_near_float32(name: str, dtype: torch.dtype) -> None:
    network = EDMPrecond(**fixture_config(name)).eval()
    load_formula_weights(network)
    io = load_file(FIXTURES / f"{name}.io.safetensors")
    c_noise = io["sigma"].log() / 4
    x = io["x"] / (io["sigma"][:, None, None, None] ** 2 + 0.25).sqrt()
    with torch.no_grad():
        exact = network.model(x, c_noise, io.get("class_labels"), io["augment_labels"])
        explicit = network.model(x.to(dtype), c_noise, io.get("class_labels"), io["augment_labels"])
        with torch.autocast("cpu", dtype):
            automatic = network.model(x, c_noise, io.get("class_labels"), io["augment_labels"])
    assert explicit.dtype == automatic.dtype == dtype
    assert torch.equal(explicit, automatic)
    error = (explicit.float() - exact).std() / exact.std()
    # each of about 20 layers in sequence rounds to eps/2 relative, independently: sqrt(20) eps/2, and a margin of 8
    assert 0 < error < 8 * 20**0.5 * torch.finfo(dtype).eps / 2


def test_checkpointing_leaves_gradients_bit_equal() -> None:
    network = EDMPrecond(**fixture_config("ddpmpp"))
    load_formula_weights(network)
    io = load_file(FIXTURES / "ddpmpp.io.safetensors")

    def gradients(recompute: bool) -> list[torch.Tensor]:
        if recompute:
            recompute_blocks(network)
        with dropout_context(5, torch.arange(4)):
            loss = network(io["x"], io["sigma"], None, io["augment_labels"]).square().mean()
        return list(torch.autograd.grad(loss, list(network.parameters())))  # recomputed outside of the context

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize("name", ["ddpmpp", "adm"])
def test_training_step_compiles_to_one_graph_and_once(name: str) -> None:
    network = EDMPrecond(**fixture_config(name))
    load_formula_weights(network)
    io = load_file(FIXTURES / f"{name}.io.safetensors")
    graphs = 0

    def count(graph, _):
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(network, backend=count, fullgraph=True)
    outputs = []
    for step in range(3):
        with dropout_context(6, torch.arange(4) + 4 * step):
            outputs.append(compiled(io["x"], io["sigma"], io.get("class_labels"), io["augment_labels"]))
            eager = network(io["x"], io["sigma"], io.get("class_labels"), io["augment_labels"])
        torch.testing.assert_close(outputs[-1], eager, atol=1e-5, rtol=1e-5)
    assert graphs == 1
    assert not torch.equal(outputs[0], outputs[1])  # the masks are inputs of the graph, not constants in it


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({**SONG, "img_resolution": 12, "channel_mult": [1, 1, 1, 1]}, "multiple of 8"),
        ({**SONG, "encoder_type": "skip"}, "encoder_type"),
        ({**SONG, "decoder_type": "skip"}, "decoder_type"),
        ({**SONG, "embedding_type": "learned"}, "embedding_type"),
        ({**ADM, "channel_mult": [1, 3]}, "multiples of 64"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: dict, word: str) -> None:
    arguments = dict(config)
    build_network = ARCHITECTURES[arguments.pop("model_type")]
    with pytest.raises(UsageError, match=word):
        build_network(**arguments)
