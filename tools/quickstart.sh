#!/usr/bin/env bash
# From nothing to a trained, measured, exported and answering network, on the digits that scikit-learn carries:
#   bash tools/quickstart.sh [options of tools/quickstart.py]
# Installs what is missing into the active virtual environment, else into .venv. It chooses the GPU build of Paddle where
# there is a GPU that can run it; to choose by hand:
#   PADDLE=paddlepaddle==2.6.2 bash tools/quickstart.sh
# Without bash, `python tools/quickstart.py` does the same where packages are missing.
set -euo pipefail
# shellcheck source=tools/setup_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"

python=$(setup python_for_quickstart)
exec "$python" "$PROJECT/tools/quickstart.py" "$@"
