"""A masked autoencoder: an encoder that sees a part of an image, and a decoder that rebuilds the rest."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.masking import Masking, brightness_weights, regular_groups, weighted_order
from darklens.models.patches import PatchEncoder, check_multiple, positions, transformer_block
from darklens.models.transformer import draw_weights

OUTPUTS = ("reconstruction_error", "constant_error")
"""Of each image: the mean squared error of hidden pixels, and that of the mean of the shown ones in their place."""


class UpconvolutionDecoder(nn.Module):
    """From tokens on a grid to an image: blocks of a transformer, then transposed convolutions that double the side.

    Parameters
    ----------
    out_channels
        Channels of the image.
    width
        Channels of a token.
    heads, depth
        Of the transformer.
    patch
        Pixels a side that a token becomes, a power of 2.
    """

    def __init__(self, out_channels: int, *, width: int, heads: int, depth: int, patch: int):
        super().__init__()
        doublings = patch.bit_length() - 1
        if patch < 2 or patch != 2**doublings:
            raise ModelError(f"patch is {patch}; a decoder that doubles the side takes 2, 4, 8, 16 or 32")
        self.blocks = nn.ModuleList(transformer_block(width, heads) for _ in range(depth))
        widths = [max(width >> number, 16) for number in range(doublings + 1)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 2, stride=2), nn.GELU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.GELU()]
        self.up = nn.Sequential(*layers, nn.Conv2d(widths[-1], out_channels, 1))
        draw_weights(self.blocks)

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Images (N, C, H, W) of tokens (N, rows · columns, width)."""
        for block in self.blocks:
            tokens = block(tokens)
        image: Tensor = self.up(tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns))
        return image


class MaskedAutoencoder(nn.Module):
    """Rebuild hidden parts of an image from the others (He et al. 2022), and return how well that went.

    In training, a random part is hidden; afterwards the image is seen four times, each time with another quarter of it
    shown, every second patch (or pixel) of every second row, so its error is always the same.

    Parameters
    ----------
    in_channels
        Channels of the images.
    outputs
        2, the number of `OUTPUTS`.
    width
        Channels of a token of the encoder, a multiple of 4 and of ``heads``.
    depth
        Transformer blocks of the encoder.
    heads
        Heads of the attention.
    patch
        Side of a patch, pixels, a power of 2 of which the sides of images are multiples.
    masking
        informative: hide patches with a probability that grows with their brightness; random: any patches; pixels: any
        single pixels.
    masked
        Fraction of the patches, or pixels, that is hidden in training.
    decoder_width, decoder_depth
        Channels and transformer blocks of the decoder.
    """

    headless = True  # its last dense layer is one of the decoder's, whose input is no feature of an image

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        *,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        patch: int = 8,
        masking: Masking = "informative",
        masked: float = 0.75,
        decoder_width: int = 64,
        decoder_depth: int = 1,
    ):
        super().__init__()
        if outputs != len(OUTPUTS):
            raise ModelError(
                "network masked-autoencoder rebuilds images; it is for the task pretrain with method mae. For anything "
                "else take network patch-transformer, which begins with its encoder: --start RUN"
            )
        if not 0 < masked < 1:
            raise ModelError(f"masked is the fraction of an image that is hidden, above 0 and below 1; got {masked}")
        self.masking, self.masked = masking, masked
        self.encoder = PatchEncoder(in_channels, width=width, depth=depth, heads=heads, patch=patch)
        self.narrow = nn.Linear(width, decoder_width)
        self.hidden_token = nn.Parameter(0.02 * torch.randn(decoder_width))
        self.decoder = UpconvolutionDecoder(
            in_channels, width=decoder_width, heads=heads, depth=decoder_depth, patch=patch
        )

    def features(self, images: Tensor) -> Tensor:
        """Features (N, width) of whole images (N, C, H, W)."""
        features: Tensor = self.encoder(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return the `OUTPUTS` (N, 2) of images (N, C, H, W)."""
        check_multiple(images.shape[-2], images.shape[-1], self.encoder.patch)
        if self.training:
            hidden = self.draw(images)
            return errors(images, self.rebuild(images, hidden), hidden)
        passes = [(self.rebuild(images, hidden), hidden) for hidden in self.regular_masks(images)]
        return torch.stack([errors(images, rebuilt, hidden) for rebuilt, hidden in passes]).mean(0)

    def draw(self, images: Tensor) -> Tensor:
        """Return at random which pixels are hidden, (N, 1, H, W) of bool, as many in each of the images (N, C, H, W)."""
        rows, columns = self._grid(images)
        if self.masking == "informative":
            weights = brightness_weights(images, self.encoder.patch)
        else:
            weights = torch.ones(len(images), rows * columns, device=images.device)
        number = min(max(round(self.masked * rows * columns), 1), rows * columns - 1)
        places = weighted_order(weights)[:, :number]
        hidden = torch.zeros_like(weights, dtype=torch.bool).scatter_(1, places, True)
        return self._enlarged(hidden.reshape(-1, 1, rows, columns))

    def rebuild(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Return images as the network makes them of what is shown.

        Parameters
        ----------
        images
            (N, C, H, W).
        hidden
            Which pixels are hidden, (N, 1, H, W) of bool, as many in each image; whole patches unless masking is pixels.

        Returns
        -------
        Tensor
            (N, C, H, W), shown parts as well, which nothing asks to be right.
        """
        patch = self.encoder.patch
        rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
        if self.masking == "pixels":
            tokens = self.narrow(self.encoder.tokens(images.masked_fill(hidden, 0)))
        else:
            of_patches = hidden[:, 0, ::patch, ::patch].flatten(1)
            shown = (~of_patches).nonzero()[:, 1].reshape(len(images), -1)
            seen = self.narrow(self.encoder.tokens(images, shown))
            tokens = self.hidden_token.to(seen).expand(len(images), rows * columns, -1)
            tokens = tokens.scatter(1, shown[..., None].expand(-1, -1, seen.shape[-1]), seen)
        tokens = tokens + positions(rows, columns, tokens.shape[-1]).to(tokens)
        image: Tensor = self.decoder(tokens, rows, columns)
        return image

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) of which each part is the mean of what was made of it while it was hidden."""
        masks = self.regular_masks(images)
        total = torch.stack([self.rebuild(images, hidden) * hidden for hidden in masks]).sum(0)
        return total / torch.stack([hidden.float() for hidden in masks]).sum(0)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of what is hidden as a whole: patches, or pixels."""
        height, width = images.shape[-2:]
        side = 1 if self.masking == "pixels" else self.encoder.patch
        if height * width == side**2:
            raise ModelError(
                f"images of {height}×{width} pixels are one patch of {side}×{side}, and nothing would be left to see; "
                f"choose a smaller --network.patch"
            )
        return height // side, width // side

    def _enlarged(self, hidden: Tensor) -> Tensor:
        side = 1 if self.masking == "pixels" else self.encoder.patch
        return hidden.repeat_interleave(side, -2).repeat_interleave(side, -1)

    def regular_masks(self, images: Tensor) -> list[Tensor]:
        """Return four masks (N, 1, H, W), True where pixels are hidden, each of which shows another quarter of images.

        There are fewer for images of one row or column of patches.
        """
        rows, columns = self._grid(images)
        groups = regular_groups(rows, columns, images.device)
        masks = [(groups != number).reshape(1, 1, rows, columns) for number in torch.unique(groups).tolist()]
        return [self._enlarged(mask).expand(len(images), -1, -1, -1) for mask in masks]


def errors(images: Tensor, rebuilt: Tensor, hidden: Tensor) -> Tensor:
    """Return mean squared errors (N, 2) of hidden pixels: of what was rebuilt, and of the mean of the shown ones.

    Parameters
    ----------
    images, rebuilt
        (N, C, H, W).
    hidden
        Which pixels are hidden, (N, 1, H, W) of bool, some in each image but not all.
    """
    truth, mask = images.float(), hidden.to(torch.float32)
    number = mask.sum((1, 2, 3)) * truth.shape[1]
    shown = 1 - mask
    mean = (truth * shown).sum((2, 3), keepdim=True) / shown.sum((2, 3), keepdim=True)
    each = [((made - truth).square() * mask).sum((1, 2, 3)) / number for made in (rebuilt.float(), mean)]
    return torch.stack(each, dim=1)
