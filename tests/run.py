"""Make everything the tests need, then run everything that must pass.

It needs nothing but a Python of 3.11 or newer, on Debian or Ubuntu: the environments, with pinned
versions, and the distribution's Redis and Alertmanager go to `.cache/`, and a second run finds
them there. All steps run, whatever fails before them.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
REQUIREMENTS = ROOT / "tests" / "requirements.txt"
STEP_SECONDS = 600.0
TESTING_SECONDS = 1800.0
"""A slow machine may take so long for one Python; each test has a limit of its own."""
PACKAGE_LEVELS = 4
UV = "uv==0.13.9"
TOLD_TO_UV = {
    "ALL_PROXY": "proxy",
    "HTTPS_PROXY": "proxy",
    "HTTP_PROXY": "proxy",
    "SSL_CERT_FILE": "cert",
    "SSL_CLIENT_CERT": "client-cert",
    "UV_CONSTRAINT": "constraint",
    "UV_DEFAULT_INDEX": "index-url",
    "UV_FIND_LINKS": "find-links",
    "UV_HTTP_TIMEOUT": "timeout",
    "UV_INDEX": "extra-index-url",
    "UV_INSECURE_HOST": "trusted-host",
}
"""What pip may be configured with, by the variables that tell uv the same."""
UV_SETTINGS = {
    "UV_INDEX_STRATEGY": "unsafe-best-match",
    "UV_NO_CONFIG": "1",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_SYSTEM_CERTS": "1",
}
"""What makes uv choose as pip does, and leave interpreters alone."""
SEARCHED = ("3.11", "3.12", "3.13")
OLD_FRAMEWORKS = {
    "HAM_OLD_FASTAPI": ("fastapi==0.136.3", "starlette==1.2.1"),
    "HAM_OLD_STARLETTE": ("starlette==0.46.2",),
    "HAM_OLD_OPENAI_1": ("openai==1.109.1", "distro==1.9.0", "tqdm==4.70.1"),
    "HAM_OLD_OPENAI_2": ("openai==2.54.0", "distro==1.9.0", "tqdm==4.70.1"),
}
SUITES = ("falcon", "fastapi", "starlette")
SUITE_TOOLS = (
    "a2wsgi==1.10.10",
    "asttokens==3.0.2",
    "dirty-equals==0.11",
    "executing==2.3.0",
    "inline-snapshot==0.36.1",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-semantic-conventions==0.66b2",
    "pyjwt==2.15.1",
)
PROBE = """
import json, sys
try:
    import ensurepip, venv
except ImportError:
    venv = None
print(json.dumps([sys.executable, "%d.%d.%d" % sys.version_info[:3], venv is not None]))
"""


class RefusalError(Exception):
    """Nothing was run; the message is one sentence that says what to do about it."""


class StepError(Exception):
    """A step failed; the message is what its program printed."""


@dataclasses.dataclass(frozen=True)
class Python:
    """An interpreter to test on."""

    executable: str
    release: str
    has_venv: bool

    @property
    def version(self) -> str:
        """Major and minor version, such as 3.11."""
        return ".".join(self.release.split(".")[:2])

    @property
    def environment(self) -> Path:
        """Its virtual environment, whether made already or not."""
        return CACHE / f"test-{self.version}"

    @property
    def tested(self) -> str:
        """The interpreter of its environment."""
        return str(self.environment / "bin" / "python")


@dataclasses.dataclass(frozen=True)
class Step:
    """Something that must succeed; `work` raises StepError if it does not."""

    name: str
    work: Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    name: str
    error: str | None


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        """Leave with that sentence and exit code 2."""
        self.exit(2, f"{message[:1].upper()}{message[1:]}; try --help.\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what follows `--` goes to pytest."""
    parser = Parser(
        prog="python3 tests/run.py",
        allow_abbrev=False,
        description="Run every test, with nothing to install first.",
        epilog="Example: python3 tests/run.py --python 3.12 -- -k lifespan",
    )
    parser.add_argument(
        "--python",
        action="append",
        metavar="VERSION",
        help="test on this one only: a version (3.12) or a path; may be repeated "
        "(default: the running one and each of 3.11 to 3.13 that is found)",
    )
    parser.add_argument(
        "--jobs",
        default="5",
        metavar="N",
        help="processes per pytest run (default: 5, since most tests wait for something; "
        "0: all tests in one)",
    )
    arguments = list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:end])
    options.pytest = arguments[end + 1 :]
    return options


def clean_environment() -> dict[str, str]:
    """Return our environment without what would lead Python, pip or uv elsewhere."""
    lead_astray = {"VIRTUAL_ENV", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_TARGET", "PIP_USER"}
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "UV_")) and name not in lead_astray
    } | {"HYPOTHESIS_STORAGE_DIRECTORY": str(CACHE / "hypothesis")}


def end(process: subprocess.Popen[str], *, with_children: bool) -> None:
    """Kill a program that still runs, and those it left behind in its session."""
    if with_children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()


def execute(
    command: Sequence[str],
    *,
    extra: dict[str, str] | None = None,
    folder: Path = ROOT,
    shown: bool = False,
    seconds: float = STEP_SECONDS,
) -> str:
    """Run a program and return what it printed; StepError with that if it fails or hangs.

    `shown` lets it write to the terminal itself, and ends what it started together with it;
    `extra` is added to its environment; `folder` is where it runs.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        env=clean_environment() | (extra or {}),
        stdin=subprocess.DEVNULL,
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=shown,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            message = f"{command[0]} took more than {seconds:g} seconds and was ended."
            raise StepError(message) from None
        finally:
            end(process, with_children=shown)
    if process.returncode:
        raise StepError(output or f"{command[0]} ended with exit code {process.returncode}.")
    return output or ""


def probe(executable: str) -> Python | None:
    """Ask an interpreter what it is; None if it does not answer (a version manager's shim)."""
    try:
        answer = subprocess.run(
            [executable, "-c", PROBE],
            env=clean_environment(),
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        )
        return Python(*json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def candidates() -> Iterator[str]:
    """Yield the paths at which an interpreter may be, the running one first."""
    yield getattr(sys, "_base_executable", sys.executable)
    for folder in os.get_exec_path():
        for version in SEARCHED:
            if path := shutil.which(f"python{version}", path=folder):
                yield path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for version in SEARCHED:
        with contextlib.suppress(OSError):
            yield from sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python3")))


def find_pythons() -> dict[str, Python]:
    """Return one interpreter per version, the running one first."""
    found: dict[str, Python] = {}
    for executable in candidates():
        python = probe(executable)
        if python is None:
            continue
        known = found.get(python.version)
        if known is None or (python.has_venv and not known.has_venv):
            found[python.version] = python
    return found


def choose_pythons(wanted: Sequence[str] | None) -> list[Python]:
    """Return the interpreters to test on; RefusalError for one that is not there."""
    if not wanted:
        return list(find_pythons().values())
    known = {} if all("/" in name for name in wanted) else find_pythons()
    chosen: dict[str, Python] = {}
    for name in wanted:
        python = probe(name) if "/" in name else known.get(name)
        if python is None:
            message = (
                f"There is no Python {name} here that runs: give --python a version or a path."
            )
            raise RefusalError(message)
        chosen[python.version] = python
    return list(chosen.values())


def ensure_venv(python: Python) -> None:
    """See that an interpreter can make environments: Debian keeps that in a package of its own."""
    if python.has_venv:
        return
    package = f"python{python.version}-venv"
    apt = shutil.which("apt-get")
    if apt and os.geteuid() == 0:
        with contextlib.suppress(StepError):
            execute([apt, "update", "-q"])
            execute(
                [apt, "install", "-q", "-y", "--no-install-recommends", package],
                extra={"DEBIAN_FRONTEND": "noninteractive"},
            )
    now = probe(python.executable)
    if now is None or not now.has_venv:
        message = (
            f"Python {python.release} at {python.executable} cannot make virtual environments: "
            f"install its venv module (on Debian and Ubuntu `apt-get install {package}`) "
            "and start again."
        )
        raise RefusalError(message)


def fingerprint(*parts: str | Path) -> str:
    """Return a digest of these texts, and of the contents of these files."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def is_current(folder: Path, subject: str, key: str) -> bool:
    """Tell whether a folder was made for this key."""
    mark = folder / f".{subject}"
    return mark.is_file() and mark.read_text(encoding="utf-8") == key


def mark_current(folder: Path, subject: str, key: str) -> None:
    """Remember the key a folder was made for; the last thing done to it."""
    (folder / f".{subject}").write_text(key, encoding="utf-8")


def pip(python: str, *arguments: str) -> str:
    """Run pip quietly, which a Python that lacks it is given first; return what it prints."""
    try:
        execute([python, "-c", "import pip"])
    except StepError:
        execute([python, "-m", "ensurepip"])
    return execute([python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments])


def installer() -> Path:
    """Return the environment of what installs all others: pip, and uv if that is to be had."""
    return CACHE / "installer"


def make_installer(main: Python) -> None:
    """Make that environment: uv takes a tenth of pip's time."""
    folder = installer()
    key = fingerprint(UV, main.executable, main.release)
    if is_current(folder, "pins", key):
        return
    shutil.rmtree(folder, ignore_errors=True)
    execute([main.executable, "-m", "venv", str(folder)])
    try:
        pip(str(folder / "bin" / "python"), "install", "--quiet", "--no-deps", UV)
    except StepError as reason:
        print(f"{reason}\nWithout {UV} pip installs everything, which takes longer.", flush=True)
    mark_current(folder, "pins", key)


def pip_options(listed: str) -> dict[str, str]:
    """Return what applies to `pip install`, from what `pip config list` prints.

    What a command is configured with goes before what all are, and the environment before both.
    """
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        with contextlib.suppress(SyntaxError, ValueError):
            found.get(section, {})[option.removeprefix("default-")] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


def uv_settings(options: dict[str, str]) -> dict[str, str]:
    """Return the variables that have uv do as pip does with these options."""
    if options.get("no-index"):
        raise StepError("uv is not told of no-index.")
    told = {
        variable: ("," if option == "find-links" else " ").join(options[option].split())
        for variable, option in TOLD_TO_UV.items()
        if option in options
    }
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    certificates = {"SSL_CERT_FILE": bundle} if bundle else {}
    return UV_SETTINGS | {"UV_CACHE_DIR": str(CACHE / "uv")} | certificates | told


def manage(python: str, command: str, *arguments: str) -> None:
    """Have uv install or check packages for an interpreter; where it cannot, pip does."""
    tools = installer() / "bin"
    if (tools / "uv").exists():
        uv = [str(tools / "uv"), "pip", command, "--quiet", "--python", python]
        try:
            options = pip_options(pip(str(tools / "python"), "config", "list"))
            execute([*uv, *arguments], extra=uv_settings(options))
        except (OSError, StepError) as reason:
            print(f"{reason}\nSince uv could not, pip tries.", flush=True)
        else:
            return
    pip(python, command, "--quiet", *arguments)


def make_environment(python: Python) -> None:
    """Install the pinned versions and the package, each only if what it depends on changed."""
    folder = python.environment
    pins = fingerprint(REQUIREMENTS, str(ROOT), python.executable, python.release)
    if not is_current(folder, "pins", pins):
        shutil.rmtree(folder, ignore_errors=True)
        execute([python.executable, "-m", "venv", "--without-pip", str(folder)])
        manage(python.tested, "install", "--requirement", str(REQUIREMENTS))
        mark_current(folder, "pins", pins)
    package = fingerprint(
        pins, ROOT / "pyproject.toml", ROOT / "holistic_asgi_monitor" / "_version.py"
    )
    if not is_current(folder, "package", package):
        options = ("--no-deps", "--no-build-isolation")
        manage(python.tested, "install", *options, "--editable", str(ROOT))
        manage(python.tested, "check")
        mark_current(folder, "package", package)


def old_folder(pins: Sequence[str]) -> Path:
    """Return where an older framework lies, to be put first on PYTHONPATH."""
    return CACHE / "old" / pins[0].replace("==", "-")


def install_apart(folder: Path, pins: Sequence[str]) -> None:
    """Put packages into a folder of theirs; pure Python, so that one serves every version."""
    key = fingerprint(*pins)
    if is_current(folder, "pins", key):
        return
    shutil.rmtree(folder, ignore_errors=True)
    python = str(installer() / "bin" / "python")
    manage(python, "install", "--no-deps", "--target", str(folder), *pins)
    mark_current(folder, "pins", key)


def suite_folder(name: str) -> Path:
    """Return where another project's test suite lies, or what all suites need (`tools`)."""
    return CACHE / "suites" / name


def pinned(name: str) -> str:
    """Return the requirement that tests/requirements.txt has for a project."""
    text = REQUIREMENTS.read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(name)}==[^\s;]+", text, re.MULTILINE)
    if found is None:
        raise StepError(f"{REQUIREMENTS} does not name {name}.")
    return found[0]


def unpack(archive: Path, folder: Path, without: str) -> None:
    """Write the files of a source distribution, but for one of its folders."""
    with tarfile.open(archive) as packed:
        for member in packed:
            parts = PurePosixPath(member.name).parts[1:]
            if ".." in parts or without in parts[:1]:
                continue
            if member.isfile() and (content := packed.extractfile(member)):
                file = folder.joinpath(*parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.read())


def fetch_suite(name: str) -> None:
    """Unpack the source distribution of what is installed, but not its package.

    Its tests are to find the installed one.
    """
    folder, pin = suite_folder(name), pinned(name)
    key = fingerprint(pin)
    if is_current(folder, "pins", key):
        return
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        options = ("--quiet", "--no-deps", "--no-binary", name, "--dest", place)
        pip(str(installer() / "bin" / "python"), "download", *options, pin)
        unpack(next(Path(place).iterdir()), folder, without=name)
    mark_current(folder, "pins", key)


def redis_folder() -> Path:
    """Return where the distribution's Redis lies, laid out as if that were the root folder."""
    return CACHE / "redis"


def download(packages: Sequence[str], folder: Path) -> None:
    """Unpack packages of the distribution; as root with a fresh list of them if need be."""
    with tempfile.TemporaryDirectory() as place:
        # As root apt-get would fetch as another user, who may not write here.
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "-q", "download", *packages]
        try:
            execute(command, folder=Path(place))
        except StepError as reason:
            if os.geteuid() != 0:
                message = f"{reason}Perhaps `apt-get update` must be run as root first."
                raise StepError(message) from None
            execute(["apt-get", "update", "-q"])
            execute(command, folder=Path(place))
        for package in Path(place).glob("*.deb"):
            execute(["dpkg", "-x", str(package), str(folder)])


def dependencies(packages: Sequence[str]) -> list[str]:
    """Return the packages that hold the program and the libraries which these depend on."""
    listed = execute(["apt-cache", "depends", *packages], extra={"LC_ALL": "C"})
    names = re.findall(r"^ +\|?(?:Pre)?Depends: ((?:redis|lib|lua)[^\s:]+)$", listed, re.MULTILINE)
    return sorted(set(names) - {"libc6"})


def lacks(program: Path, folder: Path) -> list[str]:
    """Return what a program cannot start without: itself, or libraries found nowhere."""
    if not program.exists():
        return [program.name]
    libraries = sorted({str(file.parent) for file in folder.glob("**/lib*.so*")})
    path = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {}
    needs = execute(["ldd", str(program)], extra=path)
    return re.findall(r"^\s*(\S+) => not found", needs, re.MULTILINE)


def fetch_redis() -> None:
    """Unpack the distribution's Redis, and the libraries this machine lacks; install nothing."""
    folder, release = redis_folder(), Path("/etc/os-release")
    key = fingerprint("redis-server", platform.machine(), *filter(Path.is_file, [release]))
    if is_current(folder, "pins", key):
        return
    for tool in ("apt-get", "apt-cache", "dpkg", "ldd"):
        if shutil.which(tool) is None:
            message = f"There is no {tool} here: Redis is taken from a package of Debian or Ubuntu."
            raise StepError(message)
    shutil.rmtree(folder, ignore_errors=True)
    packages = ["redis-server"]
    for _ in range(PACKAGE_LEVELS):
        download(packages, folder)
        missing = lacks(folder / "usr" / "bin" / "redis-server", folder)
        if not missing:
            mark_current(folder, "pins", key)
            return
        packages = dependencies(packages)
    raise StepError(f"Redis cannot start without {', '.join(missing)}, which no package has.")


def alertmanager_folder() -> Path:
    """Return where the distribution's Alertmanager lies, laid out as if that were the root."""
    return CACHE / "alertmanager"


def fetch_alertmanager() -> None:
    """Unpack the distribution's Alertmanager, which needs nothing but libc; install nothing."""
    folder, release = alertmanager_folder(), Path("/etc/os-release")
    name = "prometheus-alertmanager"
    key = fingerprint(name, platform.machine(), *filter(Path.is_file, [release]))
    if is_current(folder, "pins", key):
        return
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            message = f"There is no {tool} here: {name} is taken from Debian's or Ubuntu's package."
            raise StepError(message)
    shutil.rmtree(folder, ignore_errors=True)
    download([name], folder)
    mark_current(folder, "pins", key)


def fetch_servers() -> None:
    """Fetch all servers of the distribution, whatever fails before.

    One after the other, since no two programs may renew the list of packages at once.
    """
    errors = []
    for fetch in (fetch_redis, fetch_alertmanager):
        try:
            fetch()
        except StepError as error:
            errors.append(str(error))
    if errors:
        raise StepError("\n".join(errors))


def provisions() -> tuple[list[Step], dict[str, str]]:
    """Return what fetches the things tests need besides packages, and the variables naming them.

    The first step fetches servers: it needs no package, and waits the most.
    """
    apart = {" and ".join(pins): (old_folder(pins), pins) for pins in OLD_FRAMEWORKS.values()}
    apart["what test suites need"] = (suite_folder("tools"), SUITE_TOOLS)
    steps = [Step("fetch redis-server and prometheus-alertmanager", fetch_servers)]
    steps += [
        Step(f"fetch {what}", functools.partial(install_apart, folder, pins))
        for what, (folder, pins) in apart.items()
    ]
    steps += [
        Step(f"fetch the tests of {name}", functools.partial(fetch_suite, name)) for name in SUITES
    ]
    variables = {name: str(old_folder(pins)) for name, pins in OLD_FRAMEWORKS.items()}
    places = {
        "HAM_ALERTMANAGER": str(alertmanager_folder()),
        "HAM_REDIS": str(redis_folder()),
        "HAM_SUITES": str(CACHE / "suites"),
    }
    return steps, variables | places


def inspections(main: Python) -> list[Step]:
    """Return the steps that read the code without running it."""
    programs = {
        "ruff check": ("ruff", "check", "--cache-dir", str(CACHE / "ruff")),
        "ruff format": ("ruff", "format", "--check", "--cache-dir", str(CACHE / "ruff")),
        "mypy": ("mypy", "--cache-dir", str(CACHE / "mypy")),
        "import contracts": ("lint-imports", "--cache-dir", str(CACHE / "import-linter")),
    }
    folder = main.environment / "bin"
    return [
        Step(name, functools.partial(execute, [str(folder / program[0]), *program[1:]]))
        for name, program in programs.items()
    ]


def results(python: Python) -> Path:
    """Return where pytest writes its results on this interpreter."""
    return CACHE / f"results-{python.version}.xml"


def pytest_command(python: Python, *, main: bool, options: argparse.Namespace) -> list[str]:
    """Return the pytest run for one interpreter; what is marked `once` runs on the main one."""
    command = [python.tested, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--junit-xml={results(python)}", "-n", options.jobs]
    if not main:
        command += ["-m", "not once"]
    return [*command, *options.pytest]


def read_tests(command: Sequence[str]) -> None:
    """Have Python compile all modules of a pytest run, which each of its processes would do.

    What is wrong with them is told when the tests run.
    """
    with contextlib.suppress(StepError):
        execute([*command, "--collect-only", "-n", "0"])


def run_pytest(python: Python, command: Sequence[str], variables: dict[str, str]) -> None:
    """Run the tests on one interpreter, in the open."""
    results(python).unlink(missing_ok=True)
    execute(command, extra=variables, shown=True, seconds=TESTING_SECONDS)


def count(file: Path) -> tuple[int, int]:
    """Return how many tests passed and failed, from pytest's results; none without a file."""
    if not file.is_file():
        return 0, 0
    verdicts = [{child.tag for child in case} for case in ET.parse(file).iter("testcase")]
    failed = sum(bool(tags & {"failure", "error"}) for tags in verdicts)
    return sum(not tags & {"failure", "error", "skipped"} for tags in verdicts), failed


def perform(step: Step) -> Outcome:
    """Do one step, and say so in a line once it is done."""
    start = time.monotonic()
    error = None
    try:
        step.work()
    except (OSError, StepError) as reason:
        error = str(reason).rstrip()
    seconds = time.monotonic() - start
    verdict = f"ok     {seconds:6.1f} s" if error is None else f"{error}\nFAILED {seconds:6.1f} s"
    print(f"{verdict}  {step.name}", flush=True)
    return Outcome(step.name, error)


def perform_together(steps: Sequence[Step]) -> list[Outcome]:
    """Do steps that do not need one another, as many at a time as there are processors."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(perform, steps))


def environments(pythons: Sequence[Python]) -> list[Step]:
    """Return the steps that make an environment for each."""
    return [
        Step(f"environment of Python {python.release}", functools.partial(make_environment, python))
        for python in pythons
    ]


def prepare(pythons: Sequence[Python]) -> tuple[list[Outcome], list[Python], dict[str, str]]:
    """Make all that tests need; the first of the Pythons is the main one.

    Return what became of it, the Pythons that can be tested, and what `provisions` names.
    """
    (servers, *steps), variables = provisions()
    pip_and_uv = Step("pip and uv", functools.partial(make_installer, pythons[0]))
    outcomes = perform_together([servers, pip_and_uv])
    made = perform_together([*environments(pythons), *steps])
    ready = [python for python, outcome in zip(pythons, made, strict=False) if not outcome.error]
    return outcomes + made, ready, variables


def run_all(pythons: Sequence[Python], options: argparse.Namespace) -> int:
    """Do every step that can be done, the first Python being the main one; return the exit code."""
    main = pythons[0]
    outcomes, ready, variables = prepare(pythons)
    commands = {
        python: pytest_command(python, main=python is main, options=options) for python in ready
    }
    steps = inspections(main) if main in ready else []
    steps += [
        Step(f"reading tests on Python {python.release}", functools.partial(read_tests, command))
        for python, command in commands.items()
    ]
    outcomes += perform_together(steps)
    counts = {}
    for python, command in commands.items():
        name = f"pytest on Python {python.release}"
        step = Step(name, functools.partial(run_pytest, python, command, variables))
        outcomes.append(perform(step))
        counts[name] = count(results(python))
    return conclude(outcomes, counts)


def conclude(outcomes: Sequence[Outcome], counts: dict[str, tuple[int, int]]) -> int:
    """Print what failed, and the totals of the counts by step; return the exit code.

    A failed step without a failed test (a linter, a crash) counts as one failure.
    """
    broken = [outcome.name for outcome in outcomes if outcome.error is not None]
    if broken:
        print(f"Failed: {', '.join(broken)}.")
    passed = sum(ok for ok, _ in counts.values())
    failed = sum(counts.get(name, (0, 0))[1] or 1 for name in broken)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if passed and not failed else 1


def make_cache() -> None:
    """Make the folder for all we make; RefusalError where that is not allowed."""
    with contextlib.suppress(OSError):
        CACHE.mkdir(exist_ok=True)
    if not os.access(CACHE, os.W_OK):
        message = f"{CACHE} cannot be written to: run as the owner of {ROOT}, or copy it elsewhere."
        raise RefusalError(message)


def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Leave in an orderly way, so that what was started ends too."""
    raise SystemExit(128 + signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    """Run as the command line says; return the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this file alone runs on whatever is there
        print("Python 3.11 or newer is needed.", file=sys.stderr)
        return 2
    options = parse(arguments)
    try:
        pythons = choose_pythons(options.python)
        for python in pythons:
            ensure_venv(python)
        make_cache()
    except RefusalError as reason:
        print(reason, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Begun in the background of a shell: servers under test would inherit that, and some
        # of them then never end.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_all(pythons, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
