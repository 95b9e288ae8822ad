"""A small model that sees and attends as VGG-19 does: the starting point of training, by linear algebra alone.

Layer by layer, the small encoder's convolution is fitted, by ridge regression on its own inputs, to the
pre-activations of the VGG-19 channels that best stand for all of that layer's channels. Minutes of gradient descent
from random weights do not reach what this gives in seconds. Queries and keys are fitted the same way, so that
attention starts where the local loss's target (losses.local_target) looks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn import Conv2d

from ..models.attention import AdaAttention, stacked_key
from ..models.encoder import LEVELS, VGGEncoder, reflect_pad1
from ..models.fusion import MultiLevelFusion

MAX_POSITIONS = 65_536
"""Positions that one regression looks at: several times the unknowns of a row (9 x 256)."""
RIDGE = 1e-2
"""Ridge, as a share of the inputs' mean square."""
FEATURE_SIZE = 0.5
"""Root mean square of what each fitted layer gives. A step of training moves a sum of thousands of inputs by as much as
they are large: with VGG-19's own size, 2 to 5, the first steps shut the ReLUs behind relu4_1 and relu5_1 for good."""
LOGIT_DIVISOR = 32.0
"""Logits of a new model are those of VGG-19's stacked keys, divided by this. Undivided they copy one style position
each: a noisy picture, and a decoder that never sees the statistics of the style as a whole (docs/training.md)."""


@torch.no_grad()
def fit_encoder(student: VGGEncoder, teacher: VGGEncoder, images: Tensor) -> nn.ModuleList:
    """Give `student` weights that predict `teacher`; both have five blocks, the student's being narrower or shorter.

    The first convolution of a student block follows the teacher's first, the last one its last.

    Args:
        student: changed in place.
        teacher: with normalised activations (losses.normalize_activations).
        images: (B, 3, H, W) in [0, 1]; a hundred or more 128-pixel crops.

    Returns:
        for each level a 1x1 convolution from the student's features to the teacher's.
    """
    x, wanted = _same_preprocessing(student, teacher, images)
    remaining = list(teacher.layers)
    adapters = nn.ModuleList()
    for name, conv in student.layers.items():
        if name.endswith("_1") and name != "conv1_1":
            x, wanted = (F.max_pool2d(y, kernel_size=2, stride=2, ceil_mode=True) for y in (x, wanted))
        before = wanted
        for layer in remaining[: remaining.index(_counterpart(name, student, teacher)) + 1]:
            remaining.remove(layer)
            before = teacher.layers[layer](wanted)
            wanted = torch.relu(before)
        assert isinstance(conv, nn.Conv2d)
        kept = representative_channels(wanted, conv.out_channels)
        _fit(conv, x, before[:, kept])
        _scale(conv, float(torch.relu(conv(x)).square().mean().sqrt()) / FEATURE_SIZE)
        x = torch.relu(conv(x))
        if name.endswith("_1"):
            adapter = Conv2d(x.shape[1], wanted.shape[1], kernel_size=1, device=x.device)
            _fit(adapter, x, wanted)
            adapters.append(adapter)
    assert len(adapters) == len(LEVELS)
    return adapters


def _same_preprocessing(student: VGGEncoder, teacher: VGGEncoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Student's and teacher's first inputs: the teacher's `conv0`, scaled to size 1 for the student."""
    wanted = teacher.conv0(images)
    scale = wanted.std()
    student.conv0.weight.copy_(teacher.conv0.weight / scale)
    assert student.conv0.bias is not None and teacher.conv0.bias is not None
    student.conv0.bias.copy_(teacher.conv0.bias / scale)
    return wanted / scale, wanted


def _counterpart(name: str, student: VGGEncoder, teacher: VGGEncoder) -> str:
    """The teacher's convolution that a student's follows: counted from the start of the block, the last to the last."""
    block, index = int(name[4]), int(name[6:])
    if index == student.convs[block - 1] and index > 1:
        index = teacher.convs[block - 1]
    return f"conv{block}_{index}"


@torch.no_grad()
def fit_attention(fusion: MultiLevelFusion, student: VGGEncoder, teacher: VGGEncoder, images: Tensor) -> None:
    """Give `fusion` queries and keys whose products approximate those of the teacher's stacked keys.

    f = g: the linear prediction of the teacher's stacked key from the student's, on its principal components; the
    logits are divided by SOFTNESS.

    Args:
        fusion: changed in place. images: (B, 3, H, W) in [0, 1].
    """
    found, wanted = student(images), teacher(images)
    for level, attention in fusion.attention.items():
        assert isinstance(attention, AdaAttention)
        x, y = (rearrange(stacked_key(features, level), "b c h w -> (b h w) c") for features in (found, wanted))
        stride = max(1, len(x) // MAX_POSITIONS)
        x, y = x[::stride], y[::stride]
        solution = _ridge(x, y)
        predicted = x @ solution
        _, directions = torch.linalg.eigh((predicted.T @ predicted).cpu().double())
        count = attention.query_proj.out_channels
        projection = solution @ directions[:, -count:].float().to(x.device) * LOGIT_DIVISOR**-0.5
        padded = torch.zeros_like(attention.query_proj.weight)
        padded[: projection.shape[1], :, 0, 0] = projection.T
        for conv in (attention.query_proj, attention.key_proj):
            conv.weight.copy_(padded)
            assert conv.bias is not None
            conv.bias.zero_()


@torch.no_grad()
def fit_merge(fusion: MultiLevelFusion, student: VGGEncoder, images: Tensor) -> None:
    """Scale the merging convolution so that what it hands to the decoder has standard deviation 1 on these pictures.

    The sum of two deep levels through a random convolution comes out ten times as large. The first steps of training
    then shut every ReLU behind it, and the deep levels are lost for good: the picture is painted from relu3_1 alone.
    """
    if len(fusion.levels) == 1:
        return
    seen = student(images)
    deep = fusion.merge({level: seen[level] for level in fusion.levels}).deep
    fusion.merge_conv.weight.div_(deep.std())


def _scale(conv: nn.Conv2d, divisor: float) -> None:
    """Divide what a convolution gives; ReLU and pooling let the factor through."""
    assert conv.bias is not None
    conv.weight.div_(divisor)
    conv.bias.div_(divisor)


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    """(N, I), (N, O), both of mean 0 -> (I, O), the linear prediction of y from x."""
    gram, moment = ((x.T @ z).cpu().double() for z in (x, y))  # on the CPU: not every device has float64
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(gram + ridge, moment)
    return solution.float().to(x.device)


def representative_channels(features: Tensor, count: int) -> Tensor:
    """Indices of the channels that, greedily, explain most of all channels' variance: pivoted Cholesky of their Gram.

    Args:
        features: (B, C, H, W). count: how many, at most C.

    Returns:
        (count,) int64.
    """
    values = rearrange(features, "b c h w -> c (b h w)")
    stride = max(1, values.shape[1] // MAX_POSITIONS)
    values = values[:, ::stride]
    values = values - values.mean(dim=1, keepdim=True)
    gram = (values @ values.T).cpu().double()
    noise = 1e-5 * gram.diagonal().clamp_min(1e-12)  # of float32 products: what is left below it says nothing
    chosen: list[int] = []
    for _ in range(count):
        left = gram.diagonal()
        gain = torch.where(left > noise, gram.square().sum(dim=0) / left.clamp_min(noise), 0.0)
        gain[chosen] = -1
        pivot = int(gain.argmax())
        chosen.append(pivot)
        column = gram[:, pivot] / left[pivot].clamp_min(noise[pivot]).sqrt()
        gram = gram - torch.outer(column, column)
    return torch.tensor(chosen)


def _fit(conv: nn.Conv2d, inputs: Tensor, targets: Tensor) -> None:
    """Weights and bias of a stride-1 convolution by ridge regression from `inputs` (padded as in use) to `targets`."""
    kernel = conv.kernel_size[0]
    images = max(1, MAX_POSITIONS // (targets.shape[-1] * targets.shape[-2]))
    inputs, targets = inputs[:images], targets[:images]
    padded = reflect_pad1(inputs) if kernel == 3 else inputs
    x = rearrange(F.unfold(padded, kernel), "b k n -> (b n) k")
    y = rearrange(targets, "b c h w -> (b h w) c")
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    solution = _ridge(x, y)
    conv.weight.copy_(rearrange(solution, "(i h w) o -> o i h w", h=kernel, w=kernel))
    assert conv.bias is not None
    conv.bias.copy_(y_mean - x_mean @ solution)
