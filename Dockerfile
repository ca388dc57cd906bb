# Two stages: the first installs, the second only runs.
#
#   docker build -t aht-etl .
#   docker run --rm --read-only --tmpfs /tmp \
#     -v "$PWD/lake:/lake" -v "$PWD/secrets:/secrets:ro" \
#     -e AHT_ETL_SECRETS_DIR=/secrets -e AHT_ETL_ACCOUNT=12345678 aht-etl
#
# /lake must be writable for user 65532. Files larger than their share of limits.memory are spooled
# to /tmp: give it room, or set TMPDIR to a mounted disk.

FROM python:3.13-slim AS install
WORKDIR /source
COPY pyproject.toml README.md ./
COPY etl ./etl
RUN python -m venv --without-pip /opt/aht-etl \
    && python -m pip --python /opt/aht-etl/bin/python install --no-cache-dir --no-compile . \
    && /opt/aht-etl/bin/python -m compileall -q /opt/aht-etl/lib

FROM python:3.13-slim
# The interpreter stays, what installs packages goes.
RUN python -m pip uninstall --yes --root-user-action ignore pip
COPY --from=install /opt/aht-etl /opt/aht-etl
ENV PATH="/opt/aht-etl/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AHT_ETL_LAKE__URI=/lake
# A number, so that a cluster can check that it is not root.
USER 65532:65532
WORKDIR /tmp
# The process itself is number 1 and gets the signals.
ENTRYPOINT ["aht-etl"]
CMD ["run"]
