"""What networks compute in when they predict. No PyTorch at import."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16"]
