"""How a pool is kept: one folder, or a store of versions under control."""
