"""The networks at the start of a training run.

A new compact model is fitted to the VGG-19 by linear algebra alone. Layer by layer, the small encoder's convolution is
fitted, by ridge regression on its own inputs, to the pre-activations of those VGG-19 channels that best represent all
channels of that layer. Minutes of gradient descent from random weights do not reach what this gives in seconds.
Queries and keys are fitted in the same way, so that attention starts at the target of the local feature loss
(losses.local_target).
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn import Conv2d

from ..checkpoints.model_file import fingerprint, load_model
from ..checkpoints.vgg import BUILT_IN_VGG, load_vgg
from ..errors import CheckpointError, DataError
from ..models.attention import AdaAttention, stacked_key
from ..models.config import VIDEO_LEVELS
from ..models.encoder import LEVELS, VGGEncoder, reflect_pad1
from ..models.fusion import MultiLevelFusion
from ..models.model import StyleTransferModel
from ..runtime.distributed import DistributedContext
from .config import TrainConfig
from .dataset import TrainingPairs
from .losses import normalize_activations
from .objective import Networks

log = logging.getLogger(__name__)

FIT_CROPS = 160
"""Crops of 128 pixels that a new model is fitted on; fewer of larger crops, to limit the memory."""
CALIBRATION_PICTURES = 32
"""Crops that the VGG-19's channels are normalised on."""
MAX_POSITIONS = 65_536
"""Positions that one regression uses: several times the number of unknowns of a row (9 x 256)."""
RIDGE = 1e-2
"""Ridge, as a share of the inputs' mean square."""
FEATURE_SIZE = 0.5
"""Root mean square of the features of each fitted layer. One step of training changes a sum of thousands of inputs in
proportion to their size: with VGG-19's own size, 2 to 5, the first steps set the ReLUs after relu4_1 and relu5_1 to 0
permanently."""
LOGIT_DIVISOR = 32.0
"""The logits of a new model are those of VGG-19's stacked keys divided by this. Undivided, attention copies single
style positions: the result is noisy, and the decoder never receives the statistics of the whole style."""


# ---------------------------------------------------------------- the networks of a run


def load_loss_network(
    config: TrainConfig, pairs: TrainingPairs, device: torch.device, distributed: DistributedContext
) -> tuple[VGGEncoder, str]:
    """The VGG-19 of the losses and the fingerprint of its file.

    The built-in network has normalised channels; any other is normalised on training crops.
    """
    is_built_in = config.vgg == BUILT_IN_VGG
    with distributed.local_main_first():  # a download happens once for each machine
        vgg = (load_vgg(normalized=True) if is_built_in else load_vgg(config.vgg)).eval().requires_grad_(False)
    digest = fingerprint(vgg)
    vgg.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.vgg_floor and not is_built_in:
        count = min(CALIBRATION_PICTURES, len(pairs))
        normalize_activations(vgg, _target_crops(pairs, count).to(device), config.vgg_floor)
    return vgg, digest


def initial_networks(config: TrainConfig, vgg: VGGEncoder, device: torch.device) -> Networks:
    """The networks of a run before they are fitted; random weights depend on the config's seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would also set the GPU's generators
        model = _initial_model(config, vgg)
        adapters = nn.ModuleList(
            Conv2d(inputs, outputs, kernel_size=1)
            for inputs, outputs in zip(model.encoder.channels, vgg.channels, strict=True)
        )
    model.encoder.requires_grad_(not config.freeze_encoder)
    teacher = load_model(config.teacher, device=device).requires_grad_(False) if config.teacher else None
    if teacher is not None and teacher.config.levels == VIDEO_LEVELS:
        raise CheckpointError(f"{config.teacher} is for video; a teacher must be an image model")
    for module in (model, adapters):
        module.train().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Networks(model, adapters, vgg, teacher)


def _initial_model(config: TrainConfig, vgg: VGGEncoder) -> StyleTransferModel:
    if config.init:
        model = load_model(config.init).requires_grad_(True)
        kind = "video" if model.config.levels == VIDEO_LEVELS else "image"
        if kind != config.kind:
            raise CheckpointError(f"{config.init} is for {kind}, this run for {config.kind}. Use --kind {kind}.")
        return model
    model = StyleTransferModel(config.model_config())
    model.fusion.initialize()
    model.decoder.initialize()
    if config.freeze_encoder:
        model.encoder.load_state_dict(vgg.state_dict())
    return model


def fit_to_vgg(config: TrainConfig, networks: Networks, pairs: TrainingPairs) -> None:
    """Fit the encoder and the attention of a new model to the VGG-19, in place.

    A model that is loaded with `init` is changed only by `refit_attention`.

    Raises:
        DataError: the training crops are of one colour each.
    """
    if config.init and not config.refit_attention:
        return
    model, adapters, vgg, _ = networks
    device = next(model.parameters()).device
    images = calibration_crops(config, pairs).to(device)
    if not config.freeze_encoder and not config.init:
        sizes = ((*encoder.channels, *encoder.convs) for encoder in (model.encoder, vgg))
        if any(size > vgg_size for size, vgg_size in zip(*sizes, strict=True)):
            log.warning("the encoder is larger than the VGG-19; it starts from random weights")
        else:
            with torch.random.fork_rng(devices=[]):
                adapters.load_state_dict(fit_encoder(model.encoder, vgg, images).state_dict())
    fit_attention(model.fusion, model.encoder, vgg, images)
    if not config.init:
        fit_merge(model.fusion, model.encoder, images)


def calibration_crops(config: TrainConfig, pairs: TrainingPairs) -> Tensor:
    """Training crops that a model is fitted on: (B, 3, crop, crop) in [0, 1].

    Raises:
        DataError: they are of one colour each.
    """
    crops = _target_crops(pairs, max(8, min(FIT_CROPS, FIT_CROPS * 128**2 // config.crop**2)))
    if torch.equal(crops.amax((2, 3)), crops.amin((2, 3))):
        raise DataError(
            f"the pictures of {config.content} are of one colour each, and nothing can be learnt from them. "
            "Check the training folders."
        )
    return crops


def _target_crops(pairs: TrainingPairs, count: int) -> Tensor:
    return torch.stack([pairs[index].target for index in range(count)])


# ---------------------------------------------------------------- fits by linear algebra


@torch.no_grad()
def fit_encoder(student: VGGEncoder, teacher: VGGEncoder, images: Tensor) -> nn.ModuleList:
    """Give `student` weights that predict the features of `teacher`.

    Both have five blocks; the student's are narrower or shorter. The first convolution of a student's block is fitted
    to the first of the teacher's block, the last one to the last.

    Args:
        student: changed in place.
        teacher: with normalised activations (losses.normalize_activations).
        images: (B, 3, H, W) in [0, 1]; a hundred or more crops of 128 pixels.

    Returns:
        for each level a 1x1 convolution from the student's features to the teacher's.
    """
    x, target = _same_preprocessing(student, teacher, images)
    remaining = list(teacher.layers)
    adapters = nn.ModuleList()
    for name, conv in student.layers.items():
        if name.endswith("_1") and name != "conv1_1":
            x, target = (F.max_pool2d(y, kernel_size=2, stride=2, ceil_mode=True) for y in (x, target))
        pre_activation = target
        for layer in remaining[: remaining.index(_counterpart(name, student, teacher)) + 1]:
            remaining.remove(layer)
            pre_activation = teacher.layers[layer](target)
            target = torch.relu(pre_activation)
        assert isinstance(conv, nn.Conv2d)
        channels = representative_channels(target, conv.out_channels)
        _fit(conv, x, pre_activation[:, channels])
        _divide(conv, float(torch.relu(conv(x)).square().mean().sqrt()) / FEATURE_SIZE)
        x = torch.relu(conv(x))
        if name.endswith("_1"):
            adapter = Conv2d(x.shape[1], target.shape[1], kernel_size=1, device=x.device)
            _fit(adapter, x, target)
            adapters.append(adapter)
    assert len(adapters) == len(LEVELS)
    return adapters


def _same_preprocessing(student: VGGEncoder, teacher: VGGEncoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """The first inputs of student and teacher: the output of the teacher's `conv0`, for the student of deviation 1."""
    target = teacher.conv0(images)
    scale = target.std()
    student.conv0.weight.copy_(teacher.conv0.weight / scale)
    assert student.conv0.bias is not None and teacher.conv0.bias is not None
    student.conv0.bias.copy_(teacher.conv0.bias / scale)
    return target / scale, target


def _counterpart(name: str, student: VGGEncoder, teacher: VGGEncoder) -> str:
    """The teacher's convolution that a student's is fitted to: of the same number, the last one to the last."""
    block, index = int(name[4]), int(name[6:])
    if index == student.convs[block - 1] and index > 1:
        index = teacher.convs[block - 1]
    return f"conv{block}_{index}"


@torch.no_grad()
def fit_attention(fusion: MultiLevelFusion, student: VGGEncoder, teacher: VGGEncoder, images: Tensor) -> None:
    """Give `fusion` queries and keys whose products approximate those of the teacher's stacked keys.

    Query and key projection are equal: the linear prediction of the teacher's stacked key from the student's, on its
    principal components. The logits are divided by LOGIT_DIVISOR.

    Args:
        fusion: changed in place.
        student, teacher: the encoders.
        images: (B, 3, H, W) in [0, 1].
    """
    features, targets = student(images), teacher(images)
    for level, attention in fusion.attention.items():
        assert isinstance(attention, AdaAttention)
        x, y = (rearrange(stacked_key(maps, level), "b c h w -> (b h w) c") for maps in (features, targets))
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
    """Scale the merging convolution so that its output on these images has standard deviation 1.

    The sum of two deep levels after a random convolution is ten times as large. The first steps of training would then
    set every ReLU after it to 0, and the deep levels could not be trained any more.

    Args:
        fusion: changed in place; with one level there is nothing to merge.
        student: the encoder.
        images: (B, 3, H, W) in [0, 1].
    """
    if len(fusion.levels) == 1:
        return
    features = student(images)
    deep = fusion.merge({level: features[level] for level in fusion.levels}).deep
    fusion.merge_conv.weight.div_(deep.std())


def representative_channels(features: Tensor, count: int) -> Tensor:
    """Indices of the channels that explain most of the variance of all channels, chosen greedily.

    This is a pivoted Cholesky decomposition of the channels' Gram matrix.

    Args:
        features: (B, C, H, W).
        count: number of channels, at most C.

    Returns:
        (count,) int64.
    """
    values = rearrange(features, "b c h w -> c (b h w)")
    stride = max(1, values.shape[1] // MAX_POSITIONS)
    values = values[:, ::stride]
    values = values - values.mean(dim=1, keepdim=True)
    gram = (values @ values.T).cpu().double()
    noise = 1e-5 * gram.diagonal().clamp_min(1e-12)  # rounding of float32 products: a smaller remainder is noise
    chosen: list[int] = []
    for _ in range(count):
        left = gram.diagonal()
        gain = torch.where(left > noise, gram.square().sum(dim=0) / left.clamp_min(noise), 0.0)
        gain[chosen] = -1
        pivot = int(gain.argmax())
        chosen.append(pivot)
        column = gram[:, pivot] / left[pivot].clamp_min(noise[pivot]).sqrt()
        gram = gram - torch.outer(column, column)
    return torch.tensor(chosen, dtype=torch.int64)


def _fit(conv: nn.Conv2d, inputs: Tensor, targets: Tensor) -> None:
    """Fit weights and bias of a stride-1 convolution by ridge regression, with the inputs padded as in use."""
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


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    """The linear prediction of y from x by ridge regression: (N, I), (N, O), both of mean 0 -> (I, O)."""
    gram, moment = ((x.T @ z).cpu().double() for z in (x, y))  # on the CPU: not every device has float64
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(gram + ridge, moment)
    return solution.float().to(x.device)


def _divide(conv: nn.Conv2d, divisor: float) -> None:
    """Divide the output of a convolution; ReLU and pooling preserve the factor."""
    assert conv.bias is not None
    conv.weight.div_(divisor)
    conv.bias.div_(divisor)
