# The sidecar as an image of its own, to run beside a container that has none:
#
#     docker build --tag gh-net-sidecar .
#     docker run --detach --name sidecar --network container:app --cap-add NET_ADMIN --device /dev/net/tun gh-net-sidecar
#     gh-net --exec 'docker exec -i sidecar gh-net-sidecar attach'
#
# Releases are built with --build-arg SIDECAR=prebuilt-amd64 or prebuilt-arm64, by buildah: their image holds the very bytes
# of the released sidecars, which `cargo xtask dist` has put into target/dist, and no other image is pulled. It takes
# buildah or BuildKit, which build only the stages that are needed.

# built: compiled in here, for the platform of the image. prebuilt-*: taken from target/dist.
ARG SIDECAR=built
# An image in which cargo builds static programs; of the Rust that releases are built with.
ARG BUILDER=docker.io/library/rust:1.95.0-alpine

FROM ${BUILDER} AS built
WORKDIR /src
COPY . .
RUN cargo build --profile shipped --locked --package gh-net-sidecar \
    && cp target/shipped/gh-net-sidecar /gh-net-sidecar

FROM scratch AS prebuilt-amd64
COPY --chmod=755 target/dist/gh-net-sidecar-x86_64 /gh-net-sidecar

FROM scratch AS prebuilt-arm64
COPY --chmod=755 target/dist/gh-net-sidecar-aarch64 /gh-net-sidecar

FROM ${SIDECAR} AS sidecar

FROM scratch
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="gh-net-sidecar" \
      org.opencontainers.image.description="The codespace's end of gh-net: reach what only your laptop reaches" \
      org.opencontainers.image.url="https://github.com/gh-net/gh-net" \
      org.opencontainers.image.source="https://github.com/gh-net/gh-net" \
      org.opencontainers.image.documentation="https://github.com/gh-net/gh-net#readme" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=sidecar /gh-net-sidecar /usr/local/bin/gh-net-sidecar
COPY LICENSE /usr/share/licenses/gh-net/LICENSE
# Makes /run, for the state of a session.
WORKDIR /run
# So that `docker exec` finds it by its name.
ENV PATH=/usr/local/bin
STOPSIGNAL SIGTERM
# Touches nothing: the session begins when gh-net attaches.
ENTRYPOINT ["/usr/local/bin/gh-net-sidecar"]
CMD ["idle"]
