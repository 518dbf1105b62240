"""Where an exception came from, in the application's own code, without a word of its text."""

from __future__ import annotations

import json
import sys

import pytest

from holistic_asgi_monitor.failures import own_place
from holistic_asgi_monitor.settings import Settings

VIEWS = """
import json

def pay():
    raise ValueError("postgresql://user:secret@host")

def read():
    return json.loads("{secret")

def dig(depth):
    return dig(depth - 1) if depth else pay()
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Return a function that imports a module of an app, by the place of its file."""

    def imported(file, package=""):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(VIEWS)
        space = {"__name__": path.stem, "__package__": package}
        exec(compile(VIEWS, str(path), "exec"), space)
        return space

    return imported


def caught(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("file", "package", "shown"),
    [
        ("views.py", "", "views.py"),
        ("shop/views.py", "shop", "shop/views.py"),
        ("src/shop/api/views.py", "shop.api", "shop/api/views.py"),
        ("src/shop/__init__.py", "shop", "shop/__init__.py"),
    ],
)
def test_a_place_is_a_file_of_the_app_a_line_and_a_function(shop, file, package, shown):
    views = shop(file, package)

    assert own_place(caught(views["pay"])) == f"{shown}:5 in pay"


def test_what_python_and_packages_do_is_not_the_apps_own(shop):
    views = shop("views.py")
    library = shop("site-packages/library/calls.py", "library")

    def through(function):
        library["pay"].__globals__["pay"] = function
        return library["dig"](2)

    assert own_place(caught(views["read"])) == "views.py:8 in read"
    found = own_place(caught(through, views["read"]))
    assert found == "views.py:8 in read"


def test_where_all_is_installed_the_last_place_counts(shop):
    library = shop("site-packages/library/calls.py", "library")

    def call():
        library["dig"](1)

    error = caught(call)
    # Without this test's own frames, as of a task that the library started.
    error.__traceback__ = error.__traceback__.tb_next.tb_next
    assert own_place(error) == "library/calls.py:5 in pay"


def test_our_own_code_is_not_the_apps():
    error = caught(lambda: Settings(service="x", max_endpoints=-1))

    assert own_place(error).startswith("test_failures.py:")


def test_of_a_group_it_is_the_first_ones_place(shop):
    group = ExceptionGroup("secret", [ExceptionGroup("", [caught(shop("views.py")["pay"])])])

    assert own_place(group) == "views.py:5 in pay"


def test_an_endless_recursion_has_a_place(shop):
    error = caught(shop("views.py")["dig"], 10 * sys.getrecursionlimit())

    assert type(error) is RecursionError
    assert own_place(error).startswith("views.py:")


def test_without_a_traceback_there_is_none():
    assert own_place(ValueError("never raised")) == ""


def test_the_text_is_never_in_it(shop):
    for function in ("pay", "read"):
        assert "secret" not in json.dumps(own_place(caught(shop("views.py")[function])))


def test_a_place_is_bounded():
    space = {"__name__": "x"}
    name = "f" * 500
    exec(compile(f"def {name}():\n    raise ValueError", "long.py", "exec"), space)

    assert len(own_place(caught(space[name]))) == 200
