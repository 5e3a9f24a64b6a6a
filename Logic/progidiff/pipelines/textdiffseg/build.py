"""Builds the parts of a TextDiffSeg model, untrained, from a small description."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import BertConfig, BertModel, BertTokenizer

from progidiff.errors import ModelError
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.schedule import zero_snr_scheduler
from progidiff.pipelines.textdiffseg.denoiser import LabelDenoiser
from progidiff.pipelines.textdiffseg.image_encoder import VolumeEncoder
from progidiff.pipelines.textdiffseg.label_autoencoder import LabelAutoencoder
from progidiff.pipelines.textdiffseg.pipeline import TextDiffSegPipeline
from progidiff.pipelines.textdiffseg.refiner import BorderRefiner
from progidiff.pipelines.textdiffseg.text import TOKENS
from progidiff.pipelines.textdiffseg.text_fusion import TextFusion


@dataclass(frozen=True)
class Without:
    """The paper's ablations; all False is the whole model.

    Attributes:
        text: no word of the prompt reaches any part.
        label_encoder: diffusion on the folded mask itself instead of a learned latent.
        image_features: the denoiser sees folded grey values, the refiner nothing of the scan.
    """

    text: bool = False
    label_encoder: bool = False
    image_features: bool = False


@dataclass(frozen=True)
class Size:
    """Sizes of the networks; the defaults are the embedded model's.

    Attributes:
        crop: edge of the square window in pixels, a multiple of 16.
        window: slices computed at once.
        encoder_channels, control_channels, detail_channels: see `VolumeEncoder`.
        latent_channels, label_channels: see `LabelAutoencoder`.
        denoiser_channels, heads_width, groups: see `LabelDenoiser`.
        refiner_width: see `BorderRefiner`.
        text_width, text_layers, text_heads: of the small BERT.
    """

    crop: int = 80
    window: int = 24
    encoder_channels: tuple[int, ...] = (16, 48, 96, 128)
    control_channels: int = 32
    detail_channels: int = 24
    latent_channels: int = 4
    label_channels: tuple[int, int] = (16, 32)
    denoiser_channels: tuple[int, ...] = (32, 64, 128)
    heads_width: int = 32
    groups: int = 8
    refiner_width: int = 24
    text_width: int = 128
    text_layers: int = 3
    text_heads: int = 4


EMBEDDED = Size()
TINY = Size(32, 8, (8, 8, 8, 8), 8, 8, 4, (8, 8), (8, 8, 8), 8, 4, 8, 16, 1, 2)


def build_pipeline(
    size: Size,
    tokenizer: BertTokenizer,
    locator: OrganLocator,
    *,
    text_encoder: BertModel | None = None,
    without: Without | None = None,
    default_steps: int = 2,
    eta: float = 0.9,
    findings: tuple[str, ...] = (),
) -> TextDiffSegPipeline:
    """An untrained model.

    Args:
        size: of its networks.
        tokenizer: of the text encoder.
        locator: trained by `training.locator`, or taken from another model.
        text_encoder: None makes a small BERT over the tokenizer's vocabulary.
        without: ablations.
        default_steps, eta, findings: see `TextDiffSegPipeline`.
    """
    without = without or Without()
    text_encoder = text_encoder or small_bert(size, tokenizer)
    text_dim = text_encoder.config.hidden_size
    label_autoencoder = LabelAutoencoder(
        size.latent_channels, size.label_channels, learned=not without.label_encoder
    )
    image_encoder = VolumeEncoder(
        channels=size.encoder_channels,
        control_channels=size.control_channels,
        detail_channels=size.detail_channels,
        crop=size.crop,
        window=size.window,
        features=not without.image_features,
        text_width=text_dim,
        votes=True,
    )
    return TextDiffSegPipeline(
        label_autoencoder=label_autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        image_encoder=image_encoder,
        text_fusion=TextFusion(size.control_channels, text_dim, enabled=not without.text),
        denoiser=LabelDenoiser(
            latent_channels=label_autoencoder.latent_channels,
            control_channels=image_encoder.condition_channels,
            channels=size.denoiser_channels,
            text_levels=(*(False for _ in size.denoiser_channels[1:]), True),
            text_dim=text_dim,
            heads_width=size.heads_width,
            groups=size.groups,
        ),
        refiner=BorderRefiner(image_encoder.refinable_channels, text_dim, size.refiner_width),
        locator=locator,
        scheduler=zero_snr_scheduler("sample"),
        default_steps=default_steps,
        eta=eta,
        findings=" ".join(findings),
    )


def small_bert(size: Size, tokenizer: BertTokenizer) -> BertModel:
    """A small BERT over the tokenizer's vocabulary."""
    return BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text_width,
            intermediate_size=2 * size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.text_heads,
            max_position_embeddings=TOKENS,
            type_vocab_size=1,
            pad_token_id=tokenizer.pad_token_id,
        ),
        add_pooling_layer=False,
    )


def ready_made_bert(name: str, allow_download: bool = False) -> tuple[BertModel, BertTokenizer]:
    """BioBERT or any other BERT whose weights are safetensors.

    Args:
        name: folder, or id on the hub such as "dmis-lab/biobert-v1.1".
        allow_download: whether a hub id may be downloaded; otherwise it must be in the local cache.

    Raises:
        ModelError: not there, or only as pickled weights.
    """
    try:
        tokenizer = BertTokenizer.from_pretrained(name, local_files_only=not allow_download)
        text_encoder = BertModel.from_pretrained(
            name, add_pooling_layer=False, use_safetensors=True, local_files_only=not allow_download
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The text encoder {name!r} cannot be loaded ({str(error).splitlines()[0]}).",
            "Give a folder with a BERT in safetensors, or allow its download.",
        ) from error
    return text_encoder.float(), tokenizer
