# syntax=docker/dockerfile:1
# termserver as an image to build upon:  docker build -t termserver .
#
#   FROM termserver
#   COPY --chown=0:0 . /app
#   CMD ["myproject.asgi:application"]
#
# `docker build --target chat -t chat .` makes the example (examples/chat/compose.yaml).

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY termserver ./termserver
RUN pip wheel --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install /wheels/*.whl \
    && /opt/venv/bin/python -m compileall -q /opt/venv

FROM wheel AS chat-packages
COPY examples/chat/requirements.txt /source/
RUN /opt/venv/bin/pip install --requirement /source/requirements.txt \
    && /opt/venv/bin/python -m compileall -q /opt/venv

FROM python:${PYTHON}-slim AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONFAULTHANDLER=1 \
    TERMSERVER_BIND=0.0.0.0:8000 \
    TERMSERVER_WORKERS=1
# Numbers: Kubernetes' runAsNonRoot does not look names up.
USER 10001:10001
WORKDIR /app
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["termserver"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["termserver", "healthcheck", "--timeout", "2"]

FROM base AS chat
COPY --from=chat-packages /opt/venv /opt/venv
COPY examples/chat /app
ENV CHAT_DEBUG=0 CHAT_DATABASE=/data/db.sqlite3 CHAT_UPLOADS=/tmp/uploads
USER 0:0
RUN CHAT_SECRET_KEY=unused python manage.py collectstatic --no-input \
    && rm -rf /tmp/uploads && mkdir /data && chown 10001:10001 /data
USER 10001:10001
CMD ["chat.asgi:application"]

FROM base
COPY --from=wheel /opt/venv /opt/venv
