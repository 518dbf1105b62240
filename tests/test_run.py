"""What `tests/run.py` does before, between and after the tests, and what conftest.py promises."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import run

ROOT = Path(__file__).parent.parent
SKIPS = """
import pytest

def test_passes(): pass

def test_skips(): pytest.skip("no database")

@pytest.mark.skip(reason="not today")
def test_is_marked(): pass

@pytest.mark.skipif(True, reason="never")
def test_is_marked_under_a_condition(): pass

@pytest.fixture
def database(): pytest.skip("no database")

def test_has_a_fixture_that_skips(database): pass

@pytest.mark.xfail(strict=True)
def test_fails_as_expected(): assert False
"""
BLOCKS = """
import os, anyio
from holistic_asgi_monitor import shop

async def test_waits(): await shop.wait()

async def test_blocks_in_the_test_itself(): os.listdir()

async def test_lets_a_thread_block(): await anyio.to_thread.run_sync(shop.block)

async def test_blocks(): shop.block()

async def test_may_block(blockbuster):
    blockbuster.deactivate()
    shop.block()
"""
NO_SUCH_PYTHON = (
    "There is no Python /nowhere/python here that runs: give --python a version or a path.\n"
)
HANGS = """
import anyio, pytest, trio

@pytest.mark.timeout(6)
async def test_hangs(): await anyio.sleep_forever()

async def test_comes_after(): await anyio.sleep(0)
"""
NEEDS_REDIS = """
import pytest

@pytest.mark.parametrize("_redis", ["redis"], indirect=True)
def test_asks(redis): pass
"""
# What `redis-server` brings is a link to what its dependency brings, which lacks a library.
PACKAGES = {
    "redis-server": "usr/bin/unrelated",
    "redis-tools": "usr/bin/redis-server",
    "liblzf1": "usr/lib/liblzf.so.1",
    "libsystemd0": "usr/lib/libsystemd.so.0",
    "prometheus-alertmanager": "usr/bin/prometheus-alertmanager",
}
DEPENDS = """
case "$*" in
*redis-tools*) echo "  Depends: adduser
  Depends: libc6
 |Depends: liblzf1
  Depends: libsystemd0
    libelogind0
  Depends: <libvirtual>
  Suggests: libsuggested" ;;
*) echo "  PreDepends: init-system-helpers
  Depends: redis-tools" ;;
esac
"""
CONFIGURED = """:env:.cert='/of-the-environment.pem'
:env:.default-timeout='180'
global.cert='/ignored.pem'
global.extra-index-url='https://a.example https://b.example'
global.index-url='https://ignored.example/simple'
install.find-links='/wheels\\n/more'
install.index-url='https://of-install.example/simple'
list.format='ignored'
not what pip prints"""
RESULTS = """<testsuites><testsuite>
<testcase name="a"/>
<testcase name="b"><system-out>text</system-out></testcase>
<testcase name="c"><failure/></testcase>
<testcase name="d"><failure/><error/></testcase>
<testcase name="e"><error/></testcase>
<testcase name="f"><skipped/></testcase>
</testsuite></testsuites>"""


def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as a user does."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "run.py"), *arguments],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | variables,
    )


def script(path: Path, text: str) -> str:
    """Write an executable shell script and return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def python_without_venv(folder: Path) -> str:
    """Make an interpreter like Debian's: without ensurepip, until `installed` lies beside it."""
    path = folder / "python3"
    hide = f"import sys; sys.modules['ensurepip'] = None; sys.executable = '{path}'"
    lines = [
        f'test -e {folder}/installed && exec {sys.executable} "$@"',
        f'exec {sys.executable} -c "{hide}; exec(sys.argv.pop())" "$2"',
    ]
    return script(path, "\n".join(lines))


def pytest_counts(folder: Path, tests: str) -> tuple[int, int]:
    """Run these tests under our conftest.py, and count what passed and failed."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "test_sample.py").write_text(tests, encoding="utf-8")
    results = folder / "results.xml"
    options = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={folder}", f"--junit-xml={results}"]
    # A folder of its own for temporary files: others sweep those of pytest away.
    options.append(f"--basetemp={folder / 'temporary'}")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(folder)],
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        cwd=folder,
        check=False,
        stdout=subprocess.DEVNULL,
    )
    return run.count(results)


def test_help_names_every_option() -> None:
    answer = start("--help")
    assert answer.returncode == 0
    assert {"--python", "--jobs", "--help"} <= set(re.findall(r"--\w+", answer.stdout))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sideways"], "Unrecognized arguments: --sideways; try --help.\n"),
        (["test_run.py"], "Unrecognized arguments: test_run.py; try --help.\n"),
        (["--python"], "Argument --python: expected one argument; try --help.\n"),
        (
            ["--python", "/nowhere/python"],
            NO_SUCH_PYTHON,
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_exit_2(arguments: list[str], complaint: str) -> None:
    answer = start(*arguments)
    assert (answer.returncode, answer.stdout, answer.stderr) == (2, "", complaint)


def test_a_python_without_venv_is_refused_with_what_to_install(tmp_path: Path) -> None:
    python = python_without_venv(tmp_path)
    answer = start("--python", python, PATH=str(tmp_path))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert f"apt-get install python{version}-venv" in answer.stderr


def test_root_on_debian_has_the_venv_module_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "apt-get", f'echo "$@" >> {tmp_path}/asked; : > {tmp_path}/installed')
    python = run.probe(python_without_venv(tmp_path))
    assert python is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    run.ensure_venv(python)
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert asked[0].startswith("update")
    assert asked[1].startswith("install")
    assert asked[1].endswith(f" python{python.version}-venv")


def test_an_interpreter_that_does_not_answer_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version manager puts a python3.12 on the path that only says what to do about it."""
    script(tmp_path / "python3.12", "echo use the global command; exit 127")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert str(tmp_path / "python3.12") in run.candidates()
    assert list(run.find_pythons()) == [running]


def test_arguments_after_two_dashes_are_left_to_pytest() -> None:
    options = run.parse(["--python", "3.12", "--python", "3.13", "--", "-k", "lifespan", "--", "x"])
    assert options.python == ["3.12", "3.13"]
    assert options.pytest == ["-k", "lifespan", "--", "x"]


@pytest.mark.parametrize(("main", "everything"), [(True, True), (False, False)])
def test_what_is_marked_once_runs_on_the_main_python_only(main: bool, everything: bool) -> None:
    python = run.Python("/usr/bin/python3", "3.12.1", has_venv=True)
    command = run.pytest_command(python, main=main, options=run.parse([]))
    assert ("not once" not in command) is everything


def test_what_runs_on_every_python_is_there(pytestconfig: pytest.Config) -> None:
    """One that is renamed would run on one Python only from then on, without a word."""
    folder = run.ROOT / "tests"
    conftest: Any = pytestconfig.pluginmanager.get_plugin(str(folder / "conftest.py"))
    modules = {file.relative_to(run.ROOT).as_posix(): file for file in folder.glob("**/test_*.py")}
    for wanted in conftest.ON_EVERY_PYTHON:
        module, _, test = wanted.partition("::")
        found = [file for name, file in modules.items() if module in name]
        assert found, wanted
        assert not test or f"def {test}" in found[0].read_text(encoding="utf-8"), wanted


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    program = script(tmp_path / "hang", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(run.StepError, match=r"took more than 0\.5 seconds and was ended"):
        run.execute([program], shown=True, seconds=0.5)
    child = int((tmp_path / "child").read_text(encoding="utf-8"))
    give_up = time.monotonic() + 10
    while is_running(child) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not is_running(child)


def is_running(process: int) -> bool:
    """Tell whether a process runs; one that has ended and was not collected does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_failed_program_is_an_error_with_its_output(tmp_path: Path) -> None:
    program = script(tmp_path / "fail", "echo line 3 is too long; exit 1")
    with pytest.raises(run.StepError, match=r"^line 3 is too long\n$"):
        run.execute([program])


def test_a_folder_is_made_again_when_what_it_was_made_for_changes(tmp_path: Path) -> None:
    pins = tmp_path / "requirements.txt"
    pins.write_text("trio==1", encoding="utf-8")
    before = run.fingerprint(pins, "3.11.7")
    assert not run.is_current(tmp_path, "pins", before)
    run.mark_current(tmp_path, "pins", before)
    assert run.is_current(tmp_path, "pins", run.fingerprint(pins, "3.11.7"))
    assert not run.is_current(tmp_path, "pins", run.fingerprint(pins, "3.11.8"))
    pins.write_text("trio==2", encoding="utf-8")
    assert not run.is_current(tmp_path, "pins", run.fingerprint(pins, "3.11.7"))


def test_results_are_counted_by_test(tmp_path: Path) -> None:
    file = tmp_path / "results.xml"
    assert run.count(file) == (0, 0)
    file.write_text(RESULTS, encoding="utf-8")
    assert run.count(file) == (2, 3)


@pytest.mark.parametrize(
    ("broken", "counts", "last_line", "exit_code"),
    [
        ([], {"pytest": (5, 0), "again": (4, 0)}, "9 passed, 0 failed", 0),
        (["pytest"], {"pytest": (5, 2), "again": (4, 0)}, "9 passed, 2 failed", 1),
        (["mypy"], {"pytest": (5, 0)}, "5 passed, 1 failed", 1),
        (["mypy", "pytest"], {"pytest": (0, 0)}, "0 passed, 2 failed", 1),
        ([], {"pytest": (0, 0)}, "0 passed, 0 failed", 1),
    ],
)
def test_the_last_line_sums_up_and_any_failure_shows_in_the_exit_code(
    broken: list[str],
    counts: dict[str, tuple[int, int]],
    last_line: str,
    exit_code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes = [run.Outcome("ruff", None), *(run.Outcome(name, "no") for name in broken)]
    assert run.conclude(outcomes, counts) == exit_code
    assert capsys.readouterr().out.splitlines()[-1] == last_line


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs in place of uv and pip; what each is called with is in `asked`."""
    monkeypatch.setattr(run, "CACHE", tmp_path)
    tools = run.installer() / "bin"
    tools.mkdir(parents=True)
    note = f'echo "$(basename $0) $@" >> {tmp_path}/asked'
    script(tools / "uv", f"{note}; echo from $UV_DEFAULT_INDEX >> {tmp_path}/asked")
    config = f"""case "$*" in *"config list") echo "{CONFIGURED}";; *-m*) {note};; esac"""
    script(tools / "python", config)
    return tmp_path


def test_what_pip_is_configured_with_is_told_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/ignored.pem")
    told = run.uv_settings(run.pip_options(CONFIGURED))
    assert told["SSL_CERT_FILE"] == "/of-the-environment.pem"
    assert told["UV_DEFAULT_INDEX"] == "https://of-install.example/simple"
    assert told["UV_INDEX"] == "https://a.example https://b.example"
    assert told["UV_FIND_LINKS"] == "/wheels,/more"
    assert told["UV_HTTP_TIMEOUT"] == "180"
    assert not any("ignored" in value for value in told.values())


def test_a_step_that_cannot_be_begun_has_failed() -> None:
    outcome = run.perform(run.Step("lint", lambda: run.execute(["/nowhere/program"])))
    assert outcome.error is not None
    assert "/nowhere/program" in outcome.error


def test_uv_trusts_what_pip_trusts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/bundle.pem")
    assert run.uv_settings({})["SSL_CERT_FILE"] == "/bundle.pem"


def test_uv_installs_and_pip_is_not_asked(installer: Path) -> None:
    run.manage("/some/python", "install", "trio==1")
    assert (installer / "asked").read_text(encoding="utf-8").splitlines() == [
        "uv pip install --quiet --python /some/python trio==1",
        "from https://of-install.example/simple",
    ]


@pytest.mark.parametrize("fault", ["missing", "broken", "fails", "no-index"])
def test_pip_installs_where_uv_cannot(
    installer: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = run.installer() / "bin"
    if fault == "missing":
        (tools / "uv").unlink()
    elif fault == "broken":
        (tools / "uv").write_bytes(b"not a program")
    elif fault == "fails":
        script(tools / "uv", "exit 1")
    else:
        monkeypatch.setattr(run, "pip_options", lambda _: {"no-index": "1"})
    run.manage(str(tools / "python"), "install", "trio==1")
    (asked,) = (installer / "asked").read_text(encoding="utf-8").splitlines()
    assert asked.endswith("-m pip --disable-pip-version-check --no-input install --quiet trio==1")


def test_a_python_without_pip_is_given_it(tmp_path: Path) -> None:
    python = script(
        tmp_path / "python",
        f'test "$1" = -c && exit 1; echo "$2" >> {tmp_path}/asked',
    )
    run.pip(python, "check")
    assert (tmp_path / "asked").read_text(encoding="utf-8").split() == ["ensurepip", "pip"]


def test_where_uv_is_not_to_be_had_there_is_pip_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "CACHE", tmp_path)
    python = script(tmp_path / "pip", "echo no such package; exit 1")
    folder = run.installer() / "bin"
    main = script(tmp_path / "main", f"mkdir -p {folder} && cp {python} {folder}/python")
    run.make_installer(run.Python(main, "3.11.7", has_venv=True))
    assert "no such package\n\nWithout uv==" in capsys.readouterr().out
    assert (run.installer() / ".pins").exists()


@pytest.mark.parametrize("exit_code", [0, 1])
def test_reading_the_tests_runs_none_and_leaves_errors_to_their_run(
    tmp_path: Path, exit_code: int
) -> None:
    program = script(tmp_path / "pytest", f'echo "$@" > {tmp_path}/asked; exit {exit_code}')
    run.read_tests([program, "tests"])
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert asked == "tests --collect-only -n 0\n"


def test_a_failing_step_does_not_keep_the_next_from_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise run.StepError("line 3 is too long\n")

    steps = [run.Step("lint", fail), run.Step("types", lambda: None)]
    outcomes = [run.perform(step) for step in steps]
    assert [outcome.error for outcome in outcomes] == ["line 3 is too long", None]
    assert re.fullmatch(
        r"line 3 is too long\nFAILED +0\.\d s  lint\nok +0\.\d s  types\n", capsys.readouterr().out
    )


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a distribution's programs on the path; what is asked of apt-get is in `asked`.

    A package is a file that names the one file it brings; `update` must come before downloads
    once there is a file `stale`.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    downloads = "; ".join(
        f'case " $* " in *" {name} "*) echo {file} > {name}.deb;; esac'
        for name, file in PACKAGES.items()
    )
    refuse = f"test -e {tmp_path}/stale && echo no such package && exit 100"
    update = f'case "$1" in update) rm {tmp_path}/stale; exit;; esac'
    script(folder / "apt-get", f'echo "$@" >> {tmp_path}/asked\n{update}\n{refuse}\n{downloads}')
    script(folder / "apt-cache", DEPENDS)
    script(folder / "dpkg", 'mkdir -p "$3/usr/bin" "$3/usr/lib" && : > "$3/$(cat "$2")"')
    missing = 'case "$LD_LIBRARY_PATH" in */usr/lib) ;; *) echo "liblzf.so.1 => not found";; esac'
    script(folder / "ldd", missing)
    monkeypatch.setenv("PATH", f"{folder}:{os.defpath}")
    monkeypatch.setattr(run, "CACHE", tmp_path)
    return tmp_path


def asked(distribution: Path) -> list[str]:
    """Return the packages apt-get was asked for each time, or that it was asked to update."""
    lines = (distribution / "asked").read_text(encoding="utf-8").splitlines()
    return [line.rpartition("download ")[2] for line in lines]


def test_redis_is_unpacked_with_what_it_needs_and_once(distribution: Path) -> None:
    run.fetch_redis()
    downloads = ["redis-server", "redis-tools", "liblzf1 libsystemd0"]
    assert asked(distribution) == downloads
    files = {path.name for path in run.redis_folder().glob("usr/*/*")}
    assert files == {Path(PACKAGES[name]).name for each in downloads for name in each.split()}
    run.fetch_redis()
    assert asked(distribution) == downloads


def test_root_has_the_list_of_packages_renewed_where_it_is_stale(
    distribution: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (distribution / "stale").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    run.fetch_redis()
    assert asked(distribution)[:3] == ["redis-server", "update -q", "redis-server"]


def test_who_is_not_root_is_told_what_root_must_do(
    distribution: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (distribution / "stale").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    message = r"^no such package\nPerhaps `apt-get update` must be run as root first\.$"
    with pytest.raises(run.StepError, match=message):
        run.fetch_redis()


def test_a_library_that_no_package_has_is_named(distribution: Path) -> None:
    script(distribution / "bin" / "ldd", "echo '\tlibrare.so.1 => not found'")
    message = r"^Redis cannot start without librare\.so\.1, which no package has\.$"
    with pytest.raises(run.StepError, match=message):
        run.fetch_redis()
    assert not run.redis_folder().joinpath(".pins").exists()


@pytest.mark.parametrize("tool", ["apt-get", "apt-cache", "dpkg", "ldd"])
def test_without_the_programs_of_debian_there_is_no_redis(
    distribution: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setenv("PATH", str(distribution / "bin"))
    (distribution / "bin" / tool).unlink()
    with pytest.raises(run.StepError, match=f"^There is no {tool} here: .* Debian or Ubuntu"):
        run.fetch_redis()


def test_a_test_that_needs_redis_fails_where_it_was_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HAM_REDIS", raising=False)
    assert pytest_counts(tmp_path, NEEDS_REDIS) == (0, 1)
    results = (tmp_path / "results.xml").read_text(encoding="utf-8")
    assert "HAM_REDIS names no folder: start the tests with `python3 tests/run.py`" in results


def test_the_servers_of_the_tests_are_named_to_them() -> None:
    steps, variables = run.provisions()
    assert variables["HAM_REDIS"] == str(run.redis_folder())
    assert variables["HAM_ALERTMANAGER"] == str(run.alertmanager_folder())
    assert run.fetch_servers in [step.work for step in steps]


def test_every_server_is_fetched_whatever_fails_before(
    distribution: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(distribution / "bin" / "ldd", "echo '\tlibrare.so.1 => not found'")
    with pytest.raises(run.StepError, match=r"^Redis cannot start without librare\.so\.1"):
        run.fetch_servers()
    assert run.alertmanager_folder().joinpath(".pins").exists()
    script(distribution / "bin" / "apt-get", "echo no such package; exit 100")
    (run.alertmanager_folder() / ".pins").unlink()
    with pytest.raises(run.StepError, match=r"(?s)no such package.*\n.*no such package"):
        run.fetch_servers()


def test_alertmanager_is_unpacked_once(distribution: Path) -> None:
    for _ in range(2):
        run.fetch_alertmanager()
    assert asked(distribution) == ["prometheus-alertmanager"]
    program = run.alertmanager_folder() / "usr" / "bin" / "prometheus-alertmanager"
    assert program.exists()


@pytest.mark.parametrize("tool", ["apt-get", "dpkg"])
def test_without_the_programs_of_debian_there_is_no_alertmanager(
    distribution: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setenv("PATH", str(distribution / "bin"))
    (distribution / "bin" / tool).unlink()
    with pytest.raises(run.StepError, match=f"^There is no {tool} here: .* Debian's or Ubuntu's"):
        run.fetch_alertmanager()


def test_every_requirement_is_pinned_and_names_no_place() -> None:
    text = run.REQUIREMENTS.read_text(encoding="utf-8")
    assert "://" not in text
    assert " /" not in text
    for line in filter(None, re.sub(r"#.*", "", text).splitlines()):
        assert re.fullmatch(r"[a-z0-9-]+==[^ =]+( ; .+)?", line.strip()), line


def test_a_skip_is_a_failure_and_an_expected_failure_is_none(tmp_path: Path) -> None:
    assert pytest_counts(tmp_path, SKIPS) == (1, 4)


def test_a_module_that_skips_itself_is_a_failure(tmp_path: Path) -> None:
    tests = "import pytest\npytest.importorskip('no_such_module')\ndef test_passes(): pass\n"
    assert pytest_counts(tmp_path, tests) == (0, 1)


def test_the_package_may_not_block_either_event_loop(tmp_path: Path) -> None:
    """A package of the same name stands in; on each loop four tests pass and one fails."""
    package = tmp_path / "holistic_asgi_monitor"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "shop.py").write_text(
        "import os, anyio\nasync def wait(): await anyio.sleep(0)\ndef block(): os.listdir()\n",
        encoding="utf-8",
    )
    assert pytest_counts(tmp_path, BLOCKS) == (8, 2)


def test_a_hanging_test_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    assert pytest_counts(tmp_path, HANGS) == (2, 2)
