"""Install packages into the environment whose Python runs this: with uv, or with pip where uv cannot be had.

    .venv/bin/python tools/install.py [--constraint FILE] [--installer auto|uv|pip] [--] REQUIREMENT ...

uv is installed from the registry that pip is set up for, and is given pip's settings: indexes, folders of wheels, certificates and
time limit. Where it cannot be installed or fails, pip installs everything. Uses nothing but Python itself.
"""

import argparse
import ast
import importlib.util
import os
import subprocess
import sys
import time

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
UV = [sys.executable, "-m", "uv"]
TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "trusted-host": "UV_INSECURE_HOST",
    "no-index": "UV_NO_INDEX",
}
"""Variable of uv for each setting of pip."""


def uv_settings(listed: str) -> dict[str, str]:
    r"""Return variables that give uv the settings that ``pip config list`` printed; later lines, from the environment, win.

    Example:
        >>> uv_settings("global.find-links='/wheels'\n:env:.no-index='1'")
        {'UV_FIND_LINKS': '/wheels', 'UV_NO_INDEX': '1'}
    """
    found = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        key, equals, value = line.partition("=")
        name = TO_UV.get(key.rpartition(".")[2])
        if equals and name:
            found[name] = " ".join(str(ast.literal_eval(value)).split())
    if "UV_FIND_LINKS" in found:
        found["UV_FIND_LINKS"] = found["UV_FIND_LINKS"].replace(" ", ",")
    return found


def get_uv() -> bool:
    """Return whether uv is there, after an attempt to install it."""
    if importlib.util.find_spec("uv") is not None:
        return True
    return subprocess.run([*PIP, "install", "--quiet", "uv"], capture_output=True, check=False).returncode == 0  # noqa: S603


def with_uv(arguments: list[str]) -> bool:
    """Install with uv; return whether it did."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    settings = {**uv_settings(listed), **os.environ}
    # pip takes the best version of any index; uv, unless told, that of the first index that has the package
    # bytecode as pip makes it: else every process compiles what it imports, where files cannot be written beside the packages
    command = [
        *UV,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--python",
        sys.executable,
        "--index-strategy",
        "unsafe-best-match",
    ]
    return subprocess.run([*command, *arguments], env=settings, check=False).returncode == 0  # noqa: S603


def main() -> None:
    """Install, and print how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirements", nargs="+", help="as pip takes them; a folder is installed as editable")
    parser.add_argument("--constraint", help="file of versions")
    parser.add_argument("--installer", choices=("auto", "uv", "pip"), default=os.environ.get("INSTALLER", "auto"))
    options = parser.parse_args()
    arguments = ["--constraint", options.constraint] if options.constraint else []
    for requirement in options.requirements:
        arguments += ["--editable", requirement] if requirement.startswith(".") else [requirement]
    if "--editable" in arguments and importlib.util.find_spec("torch") is None:
        print(
            "Installing PyTorch, which is large: 0.2 GB where the index has a build for the CPU, else 3 GB with CUDA.",
            flush=True,
        )
    began = time.perf_counter()
    used = "uv"
    if options.installer == "pip" or not (get_uv() and with_uv(arguments)):
        if options.installer == "uv":
            raise SystemExit("uv could not be installed, or failed. Use --installer pip.")
        used = "pip"
        subprocess.run([*PIP, "install", "--quiet", *arguments], check=True)  # noqa: S603
    print(f"Installed with {used} in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
