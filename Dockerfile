# The driver's image: one static program, and the list of what is linked into it.
# The same as make image builds without a container engine.
# docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v0.1.0 \
#   --build-arg REVISION=$(git rev-parse HEAD) --build-arg CREATED=$(git log -1 --format=%cI) .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS TARGETARCH VERSION=dev REVISION CREATED
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY driver driver
COPY provider provider
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=$VERSION -X main.commit=$REVISION -X main.date=$CREATED" -o /vaultmount ./cmd/vaultmount
RUN go run -trimpath github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 \
    bin -json -std -noserial -notimestamp -version $VERSION -output /sbom.cdx.json /vaultmount

FROM scratch
ARG VERSION=dev REVISION CREATED
LABEL org.opencontainers.image.title="vaultmount" \
      org.opencontainers.image.description="HashiCorp Vault secrets as files in Kubernetes pods, without a sidecar" \
      org.opencontainers.image.source="https://github.com/vaultmount/vaultmount" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
COPY --from=build /vaultmount /vaultmount
COPY --from=build /sbom.cdx.json /usr/share/vaultmount/sbom.cdx.json
# Only the DaemonSet overrides this: it mounts file systems.
USER 65532:65532
ENTRYPOINT ["/vaultmount"]
