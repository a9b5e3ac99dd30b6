# The rollout service with SGLang on GPUs: the official SGLang image, and this project in a separate environment, so that each keeps
# the dependencies it was tested with. The service starts SGLang with the image's Python.
#
#   docker build -f deploy/docker/rollout-sglang.Dockerfile -t ibtpo-rollout-sglang .
#
# SGLANG_IMAGE  pin it by digest for releases; the engine is tested with 0.5.23
ARG SGLANG_IMAGE=lmsysorg/sglang:v0.5.23

FROM ${SGLANG_IMAGE} AS requirements
WORKDIR /requirements
COPY pyproject.toml deploy/docker/requirements.py ./
RUN python3 requirements.py rollout

FROM ${SGLANG_IMAGE} AS package
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY deploy/config deploy/config
COPY ibtpo ibtpo
COPY shared shared
COPY services services
RUN pip wheel --no-deps --wheel-dir /dist .

FROM ${SGLANG_IMAGE}
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    HOME=/tmp \
    SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0
RUN groupadd --gid 10001 ibtpo \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin ibtpo \
    && python3 -m venv /opt/ibtpo \
    && install -d -o 10001 -g 10001 /run/ibtpo
COPY --chmod=0555 deploy/docker/health.py /opt/ibtpo/bin/ibtpo-health
COPY --chmod=0555 deploy/docker/share_token.py /opt/ibtpo/bin/ibtpo-token
RUN --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    /opt/ibtpo/bin/pip install --requirement /requirements/rollout.txt
RUN --mount=type=bind,from=package,source=/dist,target=/dist /opt/ibtpo/bin/pip install --no-deps /dist/*.whl
# for packages of your own (docs/own-parts.md)
ENV PYTHONPATH=/opt/parts${PYTHONPATH:+:$PYTHONPATH}
USER 10001:10001
WORKDIR /tmp
EXPOSE 8001
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=8 CMD ["/opt/ibtpo/bin/ibtpo-health", "8001", "/healthz"]
ENTRYPOINT ["/opt/ibtpo/bin/ibtpo", "rollout"]
CMD ["host=::", "port=8001", "engine=sglang"]
