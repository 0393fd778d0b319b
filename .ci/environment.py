"""Prepare .venv from the lock, or remake the lock.

Runs on a bare Python, before anything is installed: only the standard library, and a syntax that old
versions can still read far enough to say that they are too old.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
PROJECT = ROOT / "pyproject.toml"
VENV = ROOT / ".venv"
STAMP = VENV / ".installed"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / "python"
UV = BIN / "uv"
OLDEST = (3, 11)


def install():
    """Bring .venv in step with the lock and the project."""
    check_python()
    with one_at_a_time():
        if is_current():
            say("is up to date")
            return
        began = time.monotonic()
        create_venv()
        say(f"installing what {LOCK.name} lists")
        if not (have_uv() and install_with_uv()):
            say("uv could not do it, pip tries now")
            install_with_pip()
        STAMP.touch()
        say(f"ready after {time.monotonic() - began:.0f} s")


def remake_lock(arguments):
    """Resolve pyproject.toml anew for every platform and Python that the project supports."""
    uv = str(UV) if UV.exists() else shutil.which("uv")
    if uv is None:
        sys.exit("uv is neither in .venv nor on the PATH: run 'make install' first.")
    options = "--quiet --universal --generate-hashes --no-header --no-annotate --extra dev --extra bench"
    supported = ".".join(map(str, OLDEST))
    resolve = [uv, "pip", "compile", *options.split(), "--python-version", supported]
    resolve += ["--output-file", LOCK.name, *arguments, PROJECT.name]
    subprocess.run(resolve, cwd=str(ROOT), env=uv_environment(sys.executable), check=True)


def check_python():
    """Stop with a sentence, instead of a traceback, where this Python cannot serve."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"marketdash needs Python 3.11 or newer, but {sys.executable} is {release()}.\n"
            "Name another one, for instance: make install PYTHON=python3.12"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        sys.exit(
            f"{sys.executable} lacks the venv or the ensurepip module, from which .venv is made.\n"
            "On Debian and Ubuntu: apt-get install python3-venv"
        )


@contextlib.contextmanager
def one_at_a_time():
    """Let a second installation wait for the first, by locking the project's folder itself."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        yield
        return
    folder = os.open(str(ROOT), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def is_current():
    inputs = (LOCK, PROJECT, Path(__file__))
    return (
        works(PYTHON)
        and STAMP.exists()
        and STAMP.stat().st_mtime >= max(path.stat().st_mtime for path in inputs)
    )


def create_venv():
    if works(PYTHON):
        return
    say(f"creating it with Python {release()}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)


def works(python):
    """Tell whether this interpreter starts, is new enough and has pip: a moved or upgraded one may not."""
    probe = f"import pip, sys; sys.exit(sys.version_info < {OLDEST})"
    return python.exists() and subprocess.run([str(python), "-c", probe], capture_output=True).returncode == 0


def have_uv():
    """Install the locked uv, whose hashes pip verifies, unless it is there."""
    block = re.search(r"^uv==(\S+)(?:.*\\\n)+.*\n?", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    if block is None:
        return False
    if UV.exists() and f" {block[1]} " in subprocess.getoutput(f'"{UV}" --version') + " ":
        return True
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "uv.txt")
        wanted.write_text(block[0], encoding="utf-8")
        return pip("--no-deps", "--require-hashes", "--only-binary=:all:", "-r", str(wanted), check=False)


def install_with_uv():
    environment = uv_environment(str(PYTHON))
    for step in (
        ["sync", "--require-hashes", str(LOCK)],
        ["install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
    ):
        command = [str(UV), "pip", step[0], "--quiet", "--python", str(PYTHON), *step[1:]]
        if subprocess.run(command, env=environment).returncode:
            return False
    return True


def install_with_pip():
    pip("--require-hashes", "-r", str(LOCK))
    pip("--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def pip(*arguments, check=True):
    command = [str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=check).returncode == 0


def uv_environment(python):
    """Hand pip's package index and certificates to uv, which does not read pip's settings."""
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    # The environment comes last in the listing and wins, as it does for pip.
    settings = dict(re.findall(r"^(?:global|install|:env:)\.(index-url|cert)='(.*)'$", listing, re.MULTILINE))
    names = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    return {**{names[key]: value for key, value in settings.items()}, **os.environ}


def release():
    return sys.version.split()[0]


def say(what):
    print(f".venv: {what}", flush=True)


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["lock"]:
            remake_lock(sys.argv[2:])
        else:
            install()
    except subprocess.CalledProcessError as failure:
        sys.exit(f"This command failed with code {failure.returncode}: {' '.join(failure.cmd)}")
