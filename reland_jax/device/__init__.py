"""What depends on the kind of device: how much is done at a time, and which form of a product is taken.

Also the programs compiled for it, kept on the disk.
"""

from reland_jax.device.aside import set_aside, taken_back
from reland_jax.device.attention import attend
from reland_jax.device.precision import layer_products, matmul_precision
from reland_jax.device.programs import PROGRAMS, keep_programs, let_go_of_programs
from reland_jax.device.random_bits import drawn_rate, kept, random_key
from reland_jax.device.sizes import SIZES, Sizes, sizes, sizes_of, use_sizes

__all__ = [
    "PROGRAMS",
    "SIZES",
    "Sizes",
    "attend",
    "drawn_rate",
    "keep_programs",
    "kept",
    "layer_products",
    "let_go_of_programs",
    "matmul_precision",
    "random_key",
    "set_aside",
    "sizes",
    "sizes_of",
    "taken_back",
    "use_sizes",
]
