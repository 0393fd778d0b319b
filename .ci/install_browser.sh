#!/bin/sh
# Make sure that the browser tests find a Chromium; where that is impossible they skip and say so.
here=$(dirname "$0")
python=$here/../.venv/bin/python

found() {
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    "$python" - <<'PYTHON' 2>/dev/null
import pathlib, sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    sys.exit(not pathlib.Path(playwright.chromium.executable_path).exists())
PYTHON
}

from_apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    echo "browser: installing Chromium with apt-get"
    for attempt in 1 2 3; do
        # The package lists of a fresh container are empty or old; a mirror may fail once.
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends chromium >/dev/null && return 0
        sleep $((attempt * 2))
    done
    return 1
}

from_playwright() {
    echo "browser: installing Playwright's Chromium"
    "$python" -m playwright install chromium >/dev/null
}

found && exit 0
from_apt && found && exit 0
from_playwright && found && exit 0
echo "browser: there is no Chromium and none could be installed; the browser tests will skip" >&2
