# Two stages: the first installs, the second only runs.
#
#   docker build -t aht-etl .
#   mkdir -p lake
#   docker run --rm --read-only --stop-timeout 60 --user "$(id -u):$(id -g)" -v "$PWD/lake:/lake" \
#     -v "$PWD/secrets:/secrets:ro" -e AHT_ETL_SECRETS_DIR=/secrets -e AHT_ETL_ACCOUNT=12345678 aht-etl
#
# The image's user is 65532. Whichever user you choose must be able to write the lake and to read the
# secrets. The program writes only to the lake and to /scratch, which is a volume.
#
# Arguments:
#   BASE      Python 3.11 or newer on Debian, for both stages. To get the same image on any day, pin
#             the digest:
#               docker buildx imagetools inspect python:3.13-slim-trixie   # prints it
#               docker build --build-arg BASE=python:3.13-slim-trixie@sha256:… .
#   VERSION   for the label; the build fails if the program has another version
#   REVISION, CREATED
#             for the labels: "$(git rev-parse HEAD)", "$(date -u +%FT%TZ)"
#   EXTRAS    extras of the package to install too: [html]
#
# Pass your own package index and its credentials as a secret. No layer keeps it:
#   docker build --secret id=pip.conf,src=pip.conf .

ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS install
ARG EXTRAS=""
ARG VERSION=0.1.0
WORKDIR /source
COPY pyproject.toml README.md ./
COPY etl ./etl
COPY configs/docs ./configs/docs
# A quarter of the installed bytes are unused parts of Arrow: Flight, its S3 client, headers, tests.
# This step removes them. The demo proves at build time that the program works without them.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv /pip \
    && python -m venv --without-pip /opt/aht-etl \
    && /pip/bin/pip --python /opt/aht-etl/bin/python install --no-cache-dir --no-compile ".${EXTRAS}" \
    && find /opt/aht-etl -path '*/pyarrow/*' -prune \
       \( -name include -o -name tests -o -name '*flight*' -o -name '*s3*' \) -exec rm -r {} + \
    && test "$(/opt/aht-etl/bin/aht-etl --version)" = "aht-etl ${VERSION}" \
    && /opt/aht-etl/bin/aht-etl demo --lake /tmp/lake \
    && /opt/aht-etl/bin/aht-etl verify --lake /tmp/lake \
    && find /opt/aht-etl -name __pycache__ -prune -exec rm -r {} +

FROM ${BASE}
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="aht-etl" \
      org.opencontainers.image.description="Loads LivePerson's Actual Handle Time files into a partitioned Parquet lake" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=install /opt/aht-etl /opt/aht-etl
# Remove pip, and compile all bytecode, also that of the standard library: a container with a
# read-only root cannot store it, and without it each start takes a second longer. No file in the
# image ever changes, so Python does not compare bytecode with its source.
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/bin/pip* \
    && python -m compileall -q --invalidation-mode unchecked-hash \
       -x '/(test|tests|ensurepip|idlelib|lib2to3|tkinter|turtledemo)/' \
       /opt/aht-etl/lib "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && install -d -m 1777 /scratch
# HOME too: this user has no home folder, and libraries must not look for another place.
ENV PATH="/opt/aht-etl/bin:$PATH" \
    TMPDIR=/scratch \
    HOME=/scratch
VOLUME /scratch
# So the default lake, ./lake, is /lake. (A variable would win over a mounted configuration.)
WORKDIR /
# A number, so that a cluster can check that it is not root.
USER 65532:65532
# The program is process 1 and gets the signals. It starts no other processes, so it reaps none.
ENTRYPOINT ["aht-etl"]
CMD ["run"]
