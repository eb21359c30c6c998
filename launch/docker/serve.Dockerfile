# The server of recommendations, on CPUs.
# From the root of the repository:
#   docker build --file launch/docker/serve.Dockerfile --tag IMAGE .
#   docker run --rm --publish 127.0.0.1:8000:8000 --env RELAND_SERVE_TOKEN --volume BUNDLE:/bundle:ro IMAGE
# The bundle must be readable by the user 10001. To exchange it, mount the folder that it lies in, and name it by
# --bundle=/FOLDER/NAME.
FROM python:3.12.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

COPY requirements.txt requirements-serve.txt requirements-cpu.txt ./
RUN pip install -r requirements.txt -r requirements-serve.txt -r requirements-cpu.txt

# What is named here is all that the image gets: no data, no results, no keys.
COPY reland_jax reland_jax
COPY experiments experiments

RUN useradd --uid 10001 --create-home server
USER server
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=120s CMD \
  ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["python", "-m", "experiments.serve", "--host=0.0.0.0", "--grace=5"]
CMD ["--bundle=/bundle"]
