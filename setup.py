"""Where the packages lie: some rooms at the top level install inside `evo_tvm`. All else is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

ROOMS = ("schedules", "targets", "tuning_logs")
# Namespace packages too: a folder that holds data alone has no __init__.py.
NOT_OURS = ["*__pycache__*"]

setup(
    packages=[
        *find_namespace_packages(include=["evo_tvm", "evo_tvm.*"], exclude=NOT_OURS),
        *(f"evo_tvm.{room}" for room in ROOMS),
        *(f"evo_tvm.{room}.{part}" for room in ROOMS for part in find_namespace_packages(room, exclude=NOT_OURS)),
    ],
    package_dir={f"evo_tvm.{room}": room for room in ROOMS},
)
