"""Bundle: a folder of weights with `bundle.json`. Nothing in it runs: safetensors and ONNX, never pickle.

`python -m ditto.bundle seal FOLDER` writes the SHA-256 of every file named there into `bundle.json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ditto.errors import BundleError, EngineError, InputError, NoBundleError
from ditto.machine import user_data
from ditto.values import from_json, is_same, is_whole

if TYPE_CHECKING:
    import numpy.typing as npt
    from _typeshed import DataclassInstance

FORMAT = 1
SHIPPED = Path(__file__).parent / "bundles"
SUFFIXES = (".safetensors", ".onnx")
DTYPES = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64")  # of tensors, as safetensors says
KEYS = ("format", "name", "licence", "origin", "fps", "sample_rate", "motion_space", "parts")
PART_KEYS = ("model", "config", "files", "sha256")
NETWORKS = (  # of the published Ditto, in ditto.full.networks
    "hubert", "lmdm", "appearance_extractor", "motion_extractor", "warping_network", "spade_decoder",
    "stitching_network", "retargeting_network",
)  # fmt: skip
REPEATS = (  # numbers of a config that tell how often layers are repeated
    "blocks", "condition_layers", "depths", "halvings", "layers", "levels", "reference_blocks", "residual_blocks",
)  # fmt: skip
# Networks that were written again so that they run faster, and give the same bits: SHA-256 of the file -> of the one that it
# replaces. What was made with the earlier one (takes, datasets, latent bundles) stays valid.
SAME_BITS = {
    # The lite speech encoder without copies of its cache; 1900 hops of noise, speech and silence compared, ONNX Runtime 1.31,
    # AVX-512.
    "5d494f344252cb625dddc6f937989b620aacc3e90df7e7014d7a8822cbf527c0":
        "3e33979c3d93ca7b5c620e089cb872901aeccd02403f6e2c5f655545c2633431",
}  # fmt: skip

SETTINGS = "released_settings"  # the model of a part that holds settings; their arrays may be infinite
NEVER_ZERO = ("weight_orig", "weight_u", "weight_v", "original0", "original1")  # of layers with spectral or weight norm
CONDITION = ("motion.output.weight",)  # of V and RAP: zero where the condition on motion was not trained (`ditto.latent`)
FREE_SIZES, FREE_SIZE = {"batch": 1}, 16  # for the dynamic axes of an ONNX file: by name, and of every other name

Config = TypeVar("Config", bound="DataclassInstance")


@dataclass(frozen=True)
class Part:
    """One network (or fitted table) of a bundle.

    Attributes:
        name: encoder, motion, renderer, ...
        model: names the class that reads it.
        config: its settings, as JSON; `read_config` makes a dataclass of them.
        files: role of a file (weights, network, ...) -> path.
        sha256: role -> hexadecimal digest.
    """

    name: str
    model: str
    config: Mapping[str, Any]
    files: Mapping[str, Path]
    sha256: Mapping[str, str]

    def file(self, role: str) -> Path:
        """Path of one file.

        Raises:
            BundleError: the part has no file of this role, or the file is missing.
        """
        if role not in self.files:
            raise BundleError(
                f"expected file {role!r} in part {self.name!r}, got {', '.join(self.files) or 'none'}; get the bundle again"
            )
        path = self.files[role]
        if not path.is_file():
            raise BundleError(f"expected {path} for part {self.name!r}, got no such file; get the bundle again")
        return path

    def identity(self, role: str) -> str:
        """What a file is known by outside of its bundle: its SHA-256, or that of the file whose bits it gives (`SAME_BITS`).

        Raises:
            BundleError: the part has no file of this role.
        """
        if role not in self.sha256:
            raise BundleError(
                f"expected file {role!r} in part {self.name!r}, got {', '.join(self.files) or 'none'}; get the bundle again"
            )
        return SAME_BITS.get(self.sha256[role], self.sha256[role])

    def verify(self, *roles: str) -> None:
        """Compare files with their SHA-256: those of the roles given, or all.

        Raises:
            BundleError: a file is missing, or has another SHA-256 than `bundle.json` says.
        """
        for role in roles or self.files:
            path = self.file(role)
            try:
                found = digest(path)
            except OSError as error:
                raise BundleError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
            if found != self.sha256[role]:
                raise BundleError(
                    f"expected SHA-256 {self.sha256[role][:12]}... of {path}, got {found[:12]}...; get the bundle again, or "
                    f"if you changed the file: python -m ditto.bundle seal {path.parent}"
                )


@dataclass(frozen=True)
class Bundle:
    """A folder of weights and its description.

    Attributes:
        fps, sample_rate: frames a second, samples a second of the speech.
        motion_space: meaning of the 70 numbers of its motions (docs/motion.md): "lite" or "full".
    """

    path: Path
    name: str
    licence: str
    origin: str
    fps: int
    sample_rate: int
    motion_space: str
    parts: Mapping[str, Part]

    @classmethod
    def open(cls, name_or_path: str | PathLike[str]) -> Bundle:
        """A bundle by name ("lite") or by folder. Reads only `bundle.json`; its files are opened when a part is loaded.

        Raises:
            NoBundleError: no such bundle.
            BundleError: `bundle.json` is damaged, or of another format.
        """
        folder = find_folder(name_or_path)
        file = folder / "bundle.json"
        try:
            described = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"expected a readable bundle.json at {file}, got: {error}; get the bundle again") from error
        check_keys(described, KEYS, str(file))
        if not is_same(described["format"], FORMAT):
            raise BundleError(
                f"expected format {FORMAT} in {file}, got {described['format']!r}; use another version of ditto, or get "
                "the bundle again"
            )
        for key, kind in (("name", str), ("licence", str), ("origin", str), ("motion_space", str), ("parts", dict)):
            check_type(described[key], kind, key, file)
        for key in ("fps", "sample_rate"):
            check_type(described[key], int, key, file)
        parts = {name: read_part(name, part, folder) for name, part in described["parts"].items()}
        fields = {key: described[key] for key in KEYS if key not in ("format", "parts")}
        return cls(path=folder, parts=parts, **fields)

    @property
    def id(self) -> str:
        """Its name and a digest of the identities of all its files: other weights have another id."""
        files = sorted((name, role, part.identity(role)) for name, part in self.parts.items() for role in part.sha256)
        return f"{self.name} {hashlib.sha256(json.dumps(files).encode()).hexdigest()[:12]}"

    def part(self, name: str) -> Part:
        """One part by name.

        Raises:
            BundleError: no such part.
        """
        if name not in self.parts:
            raise BundleError(
                f"expected part {name!r} in bundle {self.name!r}, got {', '.join(self.parts) or 'no parts'}; use another "
                "bundle"
            )
        return self.parts[name]

    def verify(self) -> None:
        """Compare every file with its SHA-256; raises BundleError for the first that differs or is missing."""
        for part in self.parts.values():
            part.verify()


def user_bundles() -> Path:
    """The folder of the user's bundles: DITTO_BUNDLES, or the system's folder for application data.

    Raises:
        InputError: the user has no home folder.
    """
    try:
        if named := os.environ.get("DITTO_BUNDLES"):
            return Path(named).expanduser()
        return user_data() / "bundles"
    except RuntimeError:
        raise InputError(
            "expected a home folder for bundles, got a user without one; set DITTO_BUNDLES to a folder"
        ) from None


def shipped_bundles() -> list[str]:
    """Names of the bundles inside the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/bundle.json"))


def known_bundles() -> list[str]:
    """Names that `Bundle.open` takes: shipped bundles first, then the user's."""
    shipped = shipped_bundles()
    try:
        own = sorted(p.parent.name for p in user_bundles().glob("*/bundle.json"))
    except (OSError, InputError):  # an unreadable folder, or a user without a home folder
        own = []
    return shipped + [name for name in own if name not in shipped and not name.startswith(".")]


def find_folder(name_or_path: str | PathLike[str]) -> Path:
    """The folder of a bundle: by name inside the package, by name among the user's bundles, or by path.

    Raises:
        NoBundleError: none of these has a `bundle.json`.
    """
    path = Path(name_or_path)
    try:
        folders = [SHIPPED / path] if len(path.parts) == 1 else []
        if folders:
            with suppress(InputError):  # a user without a home folder
                folders.append(user_bundles() / path)
        for folder in (*folders, path):
            if (folder / "bundle.json").is_file():
                return folder
        kind = "a folder without bundle.json" if path.is_dir() else "a file"
        found = kind if path.exists() else None
    except (OSError, ValueError) as error:  # ValueError: a null character
        found = f"a path that cannot be used ({getattr(error, 'strerror', None) or error})"
    advice = "; `ditto bundle pull full` gets the published one" if str(path) == "full" else ""
    known = ", ".join(known_bundles()) or "none"
    if found is None:
        raise NoBundleError(f"no bundle named {str(path)!r}; available: {known}, or any folder with bundle.json{advice}")
    raise NoBundleError(
        f"expected a bundle, {str(path)!r} is {found}; available: {known}, or any folder with bundle.json{advice}"
    )


def read_part(name: str, described: Any, folder: Path) -> Part:
    """One entry of `parts`, checked.

    Raises:
        BundleError: unknown or missing keys, wrong types, file names that lead out of the folder, files without a SHA-256.
    """
    where = f"{folder / 'bundle.json'}, part {name!r}"
    check_keys(described, PART_KEYS, where)
    check_type(described["model"], str, "model", where)
    for key in ("config", "files", "sha256"):
        check_type(described[key], dict, key, where)
    files = {}
    for role, file in described["files"].items():
        check_type(file, str, f"files.{role}", where)
        if Path(file).name != file or Path(file).suffix not in SUFFIXES:
            raise BundleError(
                f"{where}: expected a plain file name ending in {' or '.join(SUFFIXES)}, got {file!r}; get the bundle again"
            )
        files[role] = folder / file
    if described["sha256"].keys() != files.keys():
        raise BundleError(
            f"{where}: expected a SHA-256 for every file of the part, got others; run: python -m ditto.bundle seal {folder}"
        )
    for role, sha256 in described["sha256"].items():
        check_type(sha256, str, f"sha256.{role}", where)
    return Part(name, described["model"], described["config"], files, described["sha256"])


def read_config(config: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """A frozen dataclass from JSON; lists become tuples.

    Raises:
        BundleError: unknown or missing keys, or values of another type or that the dataclass refuses.
    """
    fields = dataclasses.fields(config)
    known = [field.name for field in fields]
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    check_keys(values, known, where, required)
    try:
        return from_json(config, values)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{where}: {error}; get the bundle again") from error


def check_keys(values: Any, known: tuple[str, ...] | list[str], where: str, required: list[str] | None = None) -> None:
    """Raises BundleError unless `values` is a mapping of known keys, with all the required ones (by default: all)."""
    if not isinstance(values, Mapping):
        raise BundleError(
            f"{where}: expected an object with {', '.join(known)}, got {type(values).__name__}; get the bundle again"
        )
    unknown = [key for key in values if key not in known]
    missing = [key for key in (known if required is None else required) if key not in values]
    if unknown or missing:
        raise BundleError(
            f"{where}: expected keys {', '.join(known)}; unknown: {', '.join(map(str, unknown)) or 'none'}, "
            f"missing: {', '.join(missing) or 'none'}; get the bundle again"
        )


def check_type(value: Any, kind: type, key: str, where: str | Path) -> None:
    """Raises BundleError unless a JSON value is of a type; true and false are no numbers."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"{where}: expected a {kind.__name__} for {key}, got {value!r}; get the bundle again")


class FileCheck(NamedTuple):
    """The result of checking one file of a bundle.

    Attributes:
        part: name of its part.
        file: its name.
        ok: whether it passed.
        detail: size and contents; or what is wrong and what to do.
    """

    part: str
    file: str
    ok: bool
    detail: str


def examine(bundle: Bundle) -> Iterator[FileCheck]:
    """Check every file, one after the other: SHA-256; implausible weights; one call of an ONNX network gives finite numbers.

    For networks of the published Ditto, if torch is installed: names and shapes of the weights, and one finite forward.
    """
    may_be_zero = () if "motion" in bundle.parts else CONDITION
    for part in bundle.parts.values():
        for role, path in part.files.items():
            try:
                part.verify(role)
                detail = [f"{path.stat().st_size / 1e6:,.1f} MB"]
                if path.suffix == ".safetensors":
                    detail += examine_weights(part, path, may_be_zero)
                elif path.suffix == ".onnx":
                    detail.append(examine_onnx(part.model, path, path))
            except BundleError as error:
                yield FileCheck(part.name, path.name, False, str(error))
            else:
                yield FileCheck(part.name, path.name, True, ", ".join(detail))


def examine_weights(part: Part, path: Path, may_be_zero: Sequence[str] = ()) -> list[str]:
    """Check a file of weights; what it holds, in words.

    Args:
        may_be_zero: names of tensors that nothing uses, so that zeros are no fault.

    Raises:
        BundleError: unreadable, implausible weights, not the weights of the part's network, or they give NaN or infinity.
    """
    shapes = {}
    for name, values in read_tensors(path):
        shapes[name] = (values.shape, values.dtype.name)
        if part.model != SETTINGS and (fault := find_fault(name, values, name in may_be_zero)):
            raise BundleError(f"{path}: {fault}; get the bundle again")
    words = [f"{len(shapes)} tensors", "no NaN"]
    if part.model in NETWORKS:
        try:
            from ditto.full.networks.loading import build_part
            from ditto.full.networks.trial import try_part
            from ditto.full.networks.weights import TensorSpec, check_specs, specs_of
        except ImportError:
            return words + ["shapes not compared (needs torch)"]
        check_specs({name: TensorSpec(*found) for name, found in shapes.items()}, specs_of(build_part(part)), path)
        try_part(part, path)
        words += [f"all of {part.model}", "one forward is finite"]
    return words


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a safetensors file, of its header alone.

    Raises:
        BundleError: missing or unreadable.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"expected a readable safetensors file at {path}, got: {error}; get the bundle again") from error


def check_sizes(config: object, shapes: Mapping[str, Sequence[int]], where: str | Path) -> None:
    """Refuse sizes that no network with these weights has, before one is made of them and fills the memory.

    Args:
        config: a dataclass of sizes; a number that tells how often layers are repeated is named in `REPEATS`.
        shapes: of the weights.

    Raises:
        BundleError: a number above that of all weights, or more repeated layers than tensors.
    """
    numbers = sum(math.prod(shape) for shape in shapes.values())
    for name, size in sizes_of(config):
        most, of = (len(shapes), "tensors") if name in REPEATS else (numbers, "numbers")
        if size > most:
            raise BundleError(f"{where}: expected {name} of at most {most}, the {of} in the file, got {size}; get it again")


def sizes_of(config: object, name: str = "a size") -> Iterator[tuple[str, int]]:
    """Names and values of all whole numbers in a dataclass, its tuples and the dataclasses in it."""
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            yield from sizes_of(getattr(config, field.name), field.name)
    elif isinstance(config, tuple):
        for item in config:
            yield from sizes_of(item, name)
    elif is_whole(config):
        yield name, config


def read_tensors(path: Path, prefix: str = "") -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Name and values of every tensor in a safetensors file whose name begins with `prefix`, one after the other.

    Raises:
        BundleError: missing, unreadable, or a tensor of a type that NumPy lacks. Whether NumPy has bfloat16 would depend on
            what else the program imported.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():
                if not name.startswith(prefix):
                    continue
                stored = tensors.get_slice(name).get_dtype()
                if stored not in DTYPES:
                    raise BundleError(
                        f"expected a readable safetensors file at {path}, got {name} as {stored}; convert it to F32 or F16"
                    )
                yield name, tensors.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"expected a readable safetensors file at {path}, got: {error}; get the bundle again") from error


def examine_onnx(model: str, path: Path, where: Path) -> str:
    """Run an ONNX file once, with noise; what it gives, in words. `where` names the file in messages.

    Raises:
        BundleError: it cannot be run, or gives NaN or infinity.
    """
    import numpy as np

    from ditto.engines import open_engine
    from ditto.full.sizes import WINDOW_SAMPLES

    rng = np.random.default_rng(0)
    try:
        engine = open_engine(path)
        arrays = {}
        for name, dtype, shape in engine.inputs:
            sizes = [size if isinstance(size, int) else FREE_SIZES.get(size, FREE_SIZE) for size in shape]
            if model == "hubert":
                sizes = [1, WINDOW_SAMPLES]
            arrays[name] = (0.1 * rng.standard_normal(sizes)).astype(dtype)
        found = engine(**arrays)
    except EngineError as error:
        raise BundleError(f"{where}: expected a network that runs, got: {error}; get the file again") from error
    wrong = [name for name, values in found.items() if values.dtype.kind == "f" and not np.isfinite(values).all()]
    if wrong:
        raise BundleError(
            f"{where}: expected finite numbers from one call, got NaN or infinity in {', '.join(wrong)}; get the file again"
        )
    return "one call is finite"


def find_fault(name: str, values: Any, may_be_zero: bool = False) -> str | None:
    """What is wrong with a tensor of weights, judged by its name and values (an array); None if nothing is.

    No sound training gives such weights: the file is damaged, or the training failed.
    """
    import numpy as np

    if values.dtype.kind == "f":
        bad = int(values.size - np.isfinite(values).sum())
        if bad:
            return f"{name} holds {bad} numbers of {values.size} that are NaN or infinite"
    last = name.rpartition(".")[2]
    if last == "running_var" and (values < 0).any():
        return f"{name} holds {int((values < 0).sum())} numbers of {values.size} below zero, but it is a variance"
    if not may_be_zero and (last in NEVER_ZERO or last.endswith("weight")) and values.size > 1 and not values.any():
        return f"all {values.size} numbers of {name} are zero, so its layer gives nothing"
    return None


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    sha256 = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def seal(folder: Path) -> dict[str, Any]:
    """Write the SHA-256 of every file named in `bundle.json` into it; returns the new description.

    Raises:
        BundleError: `bundle.json` is unreadable, or a file that it names is missing.
    """
    file = folder / "bundle.json"
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
        for part in described["parts"].values():
            part["sha256"] = {role: digest(folder / name) for role, name in part["files"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise BundleError(f"{file} cannot be sealed: {type(error).__name__} {error}; check the file") from error
    file.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    Bundle.open(folder).verify()
    return dict(described)


def reseal(folder: Path) -> None:
    """Seal a folder into which an exporter has written weights, if it is a bundle."""
    if (folder / "bundle.json").is_file():
        seal(folder)


def main(arguments: list[str]) -> int:
    """`python -m ditto.bundle seal FOLDER`; returns the exit code."""
    from ditto.app.console import open_streams, print_error, print_result
    from ditto.commands import EXIT_INPUT_ERROR

    open_streams()
    if len(arguments) != 2 or arguments[0] != "seal":
        print_error("usage: python -m ditto.bundle seal FOLDER")
        return EXIT_INPUT_ERROR
    try:
        sealed = seal(Path(arguments[1]))
    except BundleError as error:
        print_error(f"ditto: {type(error).__name__}: {error}")
        return EXIT_INPUT_ERROR
    for name, part in sealed["parts"].items():
        for role, sha256 in part["sha256"].items():
            print_result(f"{name:10} {part['files'][role]:28} {sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
