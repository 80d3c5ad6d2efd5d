"""What pyproject.toml cannot state: the packages include `config/config.yaml` and the numbers that it names."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["corelib", "corelib.*"]), "corelib.configuration"],
    package_dir={"corelib.configuration": "config"},
    package_data={"corelib": ["py.typed"], "corelib.configuration": ["config.yaml", "published.csv"]},
)
