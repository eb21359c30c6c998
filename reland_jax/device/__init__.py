"""What depends on the kind of device: how much is done at a time, and which form of a product is taken."""

from reland_jax.device.sizes import SIZES, Sizes, sizes, sizes_of, use_sizes

__all__ = ["SIZES", "Sizes", "sizes", "sizes_of", "use_sizes"]
