"""data, cache."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import InputError
from ..utils.console import EXIT_FAILURE, EXIT_OK, escape
from .options import PATH, Group, argument, option, suggest

_name_argument = argument(
    "name", metavar="NAME", shell_complete=suggest(lambda: ("cifar10", "cifar100")), help="cifar10 or cifar100."
)
_data_dir_option = option("--data-dir", metavar="DIR", help="Directory of the CIFAR files. Default: the data cache.")


@click.group(
    cls=Group,
    invoke_without_command=True,
    help="List, download or verify the built-in data sets; check a folder of images. Without a command: list.",
)
@click.pass_context
def data(ctx: click.Context) -> int | None:
    return list_data() if ctx.invoked_subcommand is None else None


@data.command("list", help="List the built-in data sets.")
def list_() -> int:
    return list_data()


def list_data() -> int:
    """Print the data sets that have a name."""
    from ..data import registry

    for name, about in registry.list_data():
        print(f"{name:<10} {about}")
    return EXIT_OK


@data.command(help="Download a data set and print its directory.")
@_name_argument
@_data_dir_option
def get(name: str, data_dir: str | None) -> int:
    from ..data import registry

    print(registry.fetch_data(name, data_dir))
    return EXIT_OK


@data.command(help="Compare the files of a data set with their checksums; exit status 1 if one differs.")
@_name_argument
@_data_dir_option
def verify(name: str, data_dir: str | None) -> int:
    from ..data import registry

    checked = registry.verify_data(name, data_dir)
    for file, status in checked:
        print(f"{status:<10} {file}")
    return EXIT_OK if all(status == "ok" for _, status in checked) else EXIT_FAILURE


@data.command(
    help="Read a folder of images as `train` does, list problems and how they are handled, and train nothing.",
    examples=("shakeshake data check photos/",),
)
@argument("folder", metavar="FOLDER", type=PATH, help="A folder of images, such as photos/ with photos/cat/1.jpg.")
@option("--image-size", type=int, metavar="PIXELS", help="As for `train`. Default: chosen from the images.")
@option("--split-seed", type=int, default=0, metavar="SEED", help="As for `train`.  [default: 0]")
@option("--json", "as_json", is_flag=True, help="Print everything that was found as JSON.")
def check(folder: Path, image_size: int | None, split_seed: int, as_json: bool) -> int:
    from ..data.image_folder.dataset import read_image_folder
    from ..data.image_folder.summary import as_lines

    if not folder.is_dir():
        raise InputError(f"folder: {escape(folder)} is not a folder, expected one of images, such as photos/cat/1.jpg")
    photos = read_image_folder(folder, image_size=image_size, split_seed=split_seed)
    if as_json:
        print(json.dumps({**photos.findings, "mistake": photos.error}, indent=1))
    else:
        print(*as_lines(photos.findings), sep="\n")
    if photos.error is not None:
        raise InputError(photos.error)
    return EXIT_OK


@click.group(
    cls=Group,
    invoke_without_command=True,
    help="Show or clear the cache of decoded images. Without a command: info.",
)
@click.pass_context
def cache(ctx: click.Context) -> int | None:
    return print_cache() if ctx.invoked_subcommand is None else None


@cache.command(help="Show the location of the cache and how much space each folder of images takes.")
def info() -> int:
    return print_cache()


def print_cache() -> int:
    """Print the location of the cache and its contents."""
    from ..data.image_folder.decode_cache import cache_info, cache_path

    print(cache_path())
    for entry in cache_info():
        print(f"{entry.bytes / 2**20:>10.1f} MiB  {entry.images:>8,} images of {entry.image_size} x {entry.image_size}")
        print(f"{'':>16}{escape(entry.folder)}")
    return EXIT_OK


@cache.command(help="Delete all cached images. They are decoded again when they are needed.")
def clear() -> int:
    from ..data.image_folder.decode_cache import clear_cache

    print(f"{clear_cache() / 2**20:.1f} MiB freed")
    return EXIT_OK
