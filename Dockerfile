# syntax=docker/dockerfile:1
# The one image: operator, movers and client. `make image` builds it; the test bed makes the same content without a registry.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches are not part of the image, hence the copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p vmmigration && cp target/release/vmmigration target/release/kubectl-vmmigration /

# restic 0.19 or newer: Debian 12 has an older one. The program is static.
FROM restic/restic:0.19.1 AS restic

FROM debian:bookworm-slim
# bash, curl and ssh are for checks and scripts that run in movers.
RUN apt-get update \
    && apt-get install -y --no-install-recommends bash ca-certificates curl openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 nonroot \
    && useradd --uid 65532 --gid 65532 --home-dir /tmp --no-create-home --shell /bin/bash nonroot
COPY --from=restic /usr/bin/restic /usr/local/bin/restic
COPY --from=build /vmmigration /kubectl-vmmigration /usr/local/bin/
# Numeric, so that runAsNonRoot can be checked.
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["/usr/local/bin/vmmigration"]
