# One image for the head and the workers of a Ray cluster on Kubernetes (kuberay.yaml, docs/kubernetes.md), or for one machine:
#   docker build -t clstudy . && docker run --rm -v "$PWD/runs:/home/clstudy/runs" clstudy clstudy run --space smoke
# It has the weights of the packaged generators and fetches nothing while a study runs.
FROM python:3.11-slim

# KubeRay asks whether a pod is well by wget
RUN apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/clstudy
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY search_spaces search_spaces
COPY clstudy clstudy
RUN pip install --no-cache-dir --constraint constraints.txt '.[cluster]'

RUN useradd --create-home --uid 1000 clstudy
USER clstudy
WORKDIR /home/clstudy
CMD ["clstudy", "--help"]
