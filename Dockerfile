# The image: one static binary and nothing else. Needs the public base image; where no registry can be reached,
# see Dockerfile.local.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN target="$(uname -m)-unknown-linux-gnu" \
 && cargo build --release --locked --config .cargo/static.toml --target "$target" \
 && cp "target/$target/release/doldam" /doldam

FROM scratch
COPY --from=build /doldam /doldam
ENTRYPOINT ["/doldam"]
CMD ["--help"]
