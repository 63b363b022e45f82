#!/bin/sh
# Install a lock into .venv, which is made if need be; then touch a stamp for make.
# Usage: deploy/install.sh LOCK STAMP
set -eu

lock=$1
stamp=$2
python=${PYTHON_FOR_VENV:-$(command -v python3.11 || command -v python3 || true)}

if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Waypost needs Python 3.11 or newer; name one with PYTHON_FOR_VENV=/path/to/python." >&2
    exit 1
fi
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "Making .venv with $("$python" --version)."
    "$python" -m venv --clear .venv || {
        echo "Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
fi
echo "Installing $lock into .venv."
.venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 8 --timeout 30 \
    --requirement "$lock"
touch "$stamp"
