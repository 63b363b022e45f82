#!/bin/sh
# Check what deploys without a cluster or a Docker engine: the image's recipe, the compose file, and
# every manifest against the schemas of Kubernetes, unknown fields refused.
set -eu
cd "$(dirname "$0")/.."

bin=.venv/bin
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

"$bin/yamllint" --strict --config-file deploy/yamllint.yaml \
    deploy docker-compose.yml .pre-commit-config.yaml
"$bin/hadolint" Dockerfile
"$bin/docker-compose" --env-file .env.example --file docker-compose.yml config --quiet

for folder in deploy/k8s/base deploy/k8s/overlays/*; do
    file=$rendered/$(basename "$folder").yaml
    if command -v kubectl >/dev/null; then
        kubectl kustomize "$folder" >"$file"
    elif command -v kustomize >/dev/null; then
        kustomize build "$folder" >"$file"
    else
        # Patches need kustomize, but what they are applied to can be checked without it.
        echo "Neither kubectl nor kustomize is here: $folder is checked before its patches." >&2
        for manifest in "$folder"/*.yaml; do
            case $manifest in
                */kustomization.yaml | *.patch.yaml) ;;
                *) { echo ---; cat "$manifest"; } >>"$file" ;;
            esac
        done
    fi
done
"$bin/kubernetes-validate" --strict --quiet "$rendered"/*.yaml
echo "The image, the compose file and the manifests are valid."
