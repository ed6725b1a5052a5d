"""Where the packages lie: some rooms at the top level install inside `evo_tvm`. All else is in pyproject.toml."""

from setuptools import find_packages, setup

ROOMS = ("schedules", "targets", "tuning_logs")

setup(
    packages=[
        *find_packages(include=["evo_tvm", "evo_tvm.*"]),
        *(f"evo_tvm.{room}" for room in ROOMS),
        *(f"evo_tvm.{room}.{package}" for room in ROOMS for package in find_packages(room)),
    ],
    package_dir={f"evo_tvm.{room}": room for room in ROOMS},
)
