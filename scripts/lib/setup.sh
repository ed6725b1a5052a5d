# Sourced by the scripts beside it: goes to the repository's root and makes sure that .venv has what pyproject.toml asks
# for. Takes seconds to install nothing: a stamp in .venv says what is installed.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

stop() {
    local text="error: $1"
    shift
    printf '%s\n' "$text" "$@" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    stop "no Python 3.11 or later was found." "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: PYTHON=/path/to/python $0"
}

# Whether the C compiler, if there is one, finds its headers: something has to link the compiled models.
can_link() {
    local compiler
    compiler=$(command -v cc || command -v gcc || command -v clang) &&
        echo '#include <pthread.h>' | "$compiler" -x c -fPIC -shared -o /dev/null - 2>/dev/null
}

set_up() {
    local python extras=compiler,compare,report,rpc,dev wanted
    can_link || extras+=,zig
    wanted="$PWD $extras $(cat pyproject.toml setup.py | sha256sum)"
    if [[ -x .venv/bin/python && -f .venv/installed && "$(cat .venv/installed)" == "$wanted" ]] && .venv/bin/python -c ''; then
        return
    fi
    if ! { [[ -x .venv/bin/pip ]] && .venv/bin/python -c ''; }; then
        python=$(find_python)
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            stop "$python has no venv module." "Install it (Debian, Ubuntu: apt install python3-venv) and start again."
        echo "Making .venv with $("$python" --version) ..." >&2
        "$python" -m venv --clear .venv || stop "the virtual environment .venv could not be made; the reason is above."
    fi
    echo "Installing evo_tvm[$extras] into .venv (some minutes the first time) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar off -e ".[$extras]" ||
        stop "the installation failed; the reason is above." "Without a network, point pip at a local index with PIP_INDEX_URL."
    # ncnn's converter. It names torch as a dependency, which converting an ONNX file does not need.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar off --no-deps pnnx==20261020 ||
        echo "warning: pnnx was not installed, so ncnn will be missing among the peers." >&2
    echo "$wanted" >.venv/installed
}

set_up
