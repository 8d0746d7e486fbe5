# syntax=docker/dockerfile:1
# walvec in an image of its binary and glibc: no shell, no package manager, not root.
#
#   docker build -t walvec .
#   docker run -v ./walvec.toml:/etc/walvec/walvec.toml:ro -v walvec-state:/var/lib/walvec walvec
#
# `listen = "0.0.0.0:9187"` under [admin] makes /metrics reachable from outside the container.

FROM rust:1.95-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
# The manifest names targets that the binary does not need; cargo only wants their files to exist.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    sed -n 's/^path = "\(.*\)"$/\1/p' Cargo.toml | while read -r target; do \
        mkdir -p "$(dirname "$target")" && { [ -e "$target" ] || echo 'fn main() {}' > "$target"; }; \
    done \
    && cargo build --release --locked --bin walvec \
    && install -D target/release/walvec /out/walvec \
    && mkdir -p /out/state

# glibc, libgcc and nothing else; the roots for TLS are in the binary.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/walvec /usr/bin/walvec
COPY --from=build --chown=65532:65532 /out/state /var/lib/walvec
COPY LICENSE /usr/share/doc/walvec/LICENSE
# nonroot of the base image; a number, so that Kubernetes can see that it is not root.
USER 65532:65532
VOLUME /var/lib/walvec
EXPOSE 9187
# SIGTERM drains for [pipeline] grace_period, 20 s: give `docker stop` more than its usual 10.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 CMD ["/usr/bin/walvec", "status", "--health"]
ENTRYPOINT ["/usr/bin/walvec"]
CMD ["run"]
