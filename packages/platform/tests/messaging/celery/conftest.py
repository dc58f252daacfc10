"""Fixtures for the worker program beside these tests."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery


@pytest.fixture
def program() -> Path:
    return Path(__file__).with_name("worker_program.py")


@pytest.fixture
def build_worker(program: Path) -> Callable[[str, Path], Celery]:
    """Return the program's function `build_worker`, loaded from its file because it is in no package."""
    spec = importlib.util.spec_from_file_location("worker_program", program)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build: Callable[[str, Path], Celery] = module.build_worker
    return build
