"""ReLand in JAX: LLM-enhanced recommendation that asks the LLM about one user in ten."""
