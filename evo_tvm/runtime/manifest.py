"""The manifest of an .evo file: what it holds, as frozen dataclasses and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from evo_tvm.errors import ArtifactError
from evo_tvm.runtime.gates import CurvePoint, GateInfo
from evo_tvm.spec import TensorSpec

#: The format that this version writes, and the newest that it reads.
FORMAT = 1

_T = TypeVar("_T")
_MISSING = object()


@dataclass(frozen=True)
class TargetInfo:
    """What the library was built for. `features`: what a CPU must have to run it, under LLVM's names."""

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]

    @property
    def arch(self) -> str:
        """The first part of the triple: "x86_64", "aarch64", ..."""
        return self.triple.split("-")[0]


@dataclass(frozen=True)
class KernelInfo:
    """One kernel, in the order of calls.

    `operator`: what it computes; `algorithm`: how; `schedule`: the configuration that it was scheduled with;
    `layers`: the ONNX nodes that were fused into it; `flops`, `bytes`: arithmetic, and memory touched at least, a call;
    `dtype`: what it computes in, "float32" or "int8"; `guards`: gates that it runs under, each with "+" before its name
    where it must be on and "-" where it must be off; `predicted_ms`: the time that it was expected to take, 0 where
    nobody said; `predicted_by`: "predictor", or "rule", the analytic estimate.
    """

    name: str
    operator: str
    algorithm: str
    schedule: str = ""
    layers: tuple[str, ...] = ()
    flops: int = 0
    bytes: int = 0
    dtype: str = "float32"
    guards: tuple[str, ...] = ()
    predicted_ms: float = 0.0
    predicted_by: str = ""


@dataclass(frozen=True)
class StayedFloat:
    """A layer of a quantized model that is computed in float, and why."""

    layer: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """All that is known about a compiled model without running it.

    `evo_tvm`, `tvm`: the versions that compiled it. `arena_bytes`: the memory that a run needs beside the weights.
    `prepared_bytes`: what loading makes of some of the weights, beside them.
    `plan`, `layouts`: the compiler's decisions, as it wrote them. `stayed_float`: layers that could compute in
    integers, and do not. `quantization`: where compiling quantized the model, its options, what it left in float, and
    the accuracy.
    `gates`: in the order in which they decide; `curve`: thresholds for them, by what they cost. `batch`: how many
    samples a run takes through the gates one by one.
    `checksums`: blake3, in hexadecimal, of the other members.
    """

    evo_tvm: str
    tvm: str
    target: TargetInfo
    num_threads: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    arena_bytes: int
    kernels: tuple[KernelInfo, ...]
    prepared_bytes: int = 0
    plan: tuple[Any, ...] = ()
    layouts: tuple[Any, ...] = ()
    stayed_float: tuple[StayedFloat, ...] = ()
    quantization: Mapping[str, Any] = field(default_factory=dict)
    gates: tuple[GateInfo, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    batch: int = 1
    checksums: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def with_checksums(self, checksums: Mapping[str, str]) -> Manifest:
        """The same manifest with these checksums."""
        return replace(self, checksums=dict(checksums))

    def to_json(self) -> str:
        """The text of manifest.json."""
        fields = asdict(self)
        fields = {"format": fields.pop("format"), **fields}
        for spec in (*fields["inputs"], *fields["outputs"]):
            spec["shape"] = list(spec["shape"])
        return json.dumps(fields, indent=1) + "\n"

    @staticmethod
    def from_json(text: str | bytes, where: object = "manifest.json") -> Manifest:
        """Reads and checks the text of manifest.json.

        Raises ArtifactError: not JSON, a newer format, or a field that is missing or of the wrong kind.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"its manifest is not JSON ({error})", where=where) from None
        return _Reader(where).manifest(fields)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Reader:
    """Turns parsed JSON into the dataclasses above; every complaint names the field by its path."""

    def __init__(self, where: object) -> None:
        self.where = where

    def _fail(self, path: str, expected: str, got: object) -> ArtifactError:
        shown = "nothing" if got is _MISSING else repr(got)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return ArtifactError(f"its manifest's {path} is wrong", where=self.where, expected=expected, got=shown)

    def _field(self, fields: Mapping[str, Any], path: str, name: str, kind: type[_T], default: _T | None = None) -> _T:
        path = f"{path}.{name}" if path else name
        if name not in fields and default is not None:
            return default
        value = fields.get(name, _MISSING)
        if not isinstance(value, kind) or (kind is int and not _is_int(value)):
            names = {int: "an integer", str: "text", list: "a list", dict: "an object"}
            raise self._fail(path, names[kind], value)
        return value

    def _natural(
        self, fields: Mapping[str, Any], path: str, name: str, least: int = 0, default: int | None = None
    ) -> int:
        value = self._field(fields, path, name, int, default)
        if value < least:
            raise self._fail(f"{path}.{name}" if path else name, f"at least {least}", value)
        return value

    def _texts(
        self, fields: Mapping[str, Any], path: str, name: str, default: list[Any] | None = None
    ) -> tuple[str, ...]:
        values = self._field(fields, path, name, list, default)
        if not all(isinstance(value, str) for value in values):
            raise self._fail(f"{path}.{name}", "a list of texts", values)
        return tuple(values)

    def _each(
        self,
        fields: Mapping[str, Any],
        name: str,
        read: Callable[[Mapping[str, Any], str], _T],
        default: list[Any] | None = None,
    ) -> tuple[_T, ...]:
        items = []
        for i, item in enumerate(self._field(fields, "", name, list, default)):
            if not isinstance(item, dict):
                raise self._fail(f"{name}[{i}]", "an object", item)
            items.append(read(item, f"{name}[{i}]"))
        return tuple(items)

    def _tensor(self, fields: Mapping[str, Any], path: str) -> TensorSpec:
        shape = self._field(fields, path, "shape", list)
        if not all(_is_int(extent) and extent >= 0 for extent in shape):
            raise self._fail(f"{path}.shape", "a list of integers, none below 0", shape)
        return TensorSpec(self._field(fields, path, "name", str), tuple(shape), self._field(fields, path, "dtype", str))

    def _kernel(self, fields: Mapping[str, Any], path: str) -> KernelInfo:
        return KernelInfo(
            name=self._field(fields, path, "name", str),
            operator=self._field(fields, path, "operator", str),
            algorithm=self._field(fields, path, "algorithm", str),
            schedule=self._field(fields, path, "schedule", str, ""),
            layers=self._texts(fields, path, "layers", []),
            flops=self._natural(fields, path, "flops", default=0),
            bytes=self._natural(fields, path, "bytes", default=0),
            dtype=self._field(fields, path, "dtype", str, "float32"),
            guards=self._texts(fields, path, "guards", []),
            predicted_ms=self._number(fields, path, "predicted_ms") if "predicted_ms" in fields else 0.0,
            predicted_by=self._field(fields, path, "predicted_by", str, ""),
        )

    def _stayed_float(self, fields: Mapping[str, Any], path: str) -> StayedFloat:
        return StayedFloat(*(self._field(fields, path, name, str) for name in ("layer", "operator", "reason")))

    def _number(self, fields: Mapping[str, Any], path: str, name: str) -> float:
        value = fields.get(name, _MISSING)
        if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
            raise self._fail(f"{path}.{name}", "a number", value)
        return float(value)

    def _gate(self, fields: Mapping[str, Any], path: str) -> GateInfo:
        return GateInfo(
            name=self._field(fields, path, "name", str),
            kind=self._field(fields, path, "kind", str),
            threshold=self._number(fields, path, "threshold"),
            decisions=self._natural(fields, path, "decisions", least=1, default=1),
        )

    def _point(self, fields: Mapping[str, Any], path: str) -> CurvePoint:
        values = self._field(fields, path, "thresholds", list)
        thresholds = [self._number({"": value}, f"{path}.thresholds", "") for value in values]
        latency, accuracy = (self._number(fields, path, name) for name in ("latency", "accuracy"))
        return CurvePoint(tuple(thresholds), latency, accuracy)

    def manifest(self, fields: object) -> Manifest:
        if not isinstance(fields, dict):
            raise self._fail("content", "an object", fields)
        found = self._natural(fields, "", "format", least=1)
        if found > FORMAT:
            raise ArtifactError(
                "written in a newer format than this evo_tvm reads",
                where=self.where,
                expected=f"format {FORMAT} or older",
                got=f"format {found}",
                hint="Run: pip install --upgrade evo_tvm",
            )
        target = self._field(fields, "", "target", dict)
        checksums = self._field(fields, "", "checksums", dict)
        if not all(isinstance(digest, str) for digest in checksums.values()):
            raise self._fail("checksums", "texts", checksums)
        return Manifest(
            format=found,
            evo_tvm=self._field(fields, "", "evo_tvm", str),
            tvm=self._field(fields, "", "tvm", str),
            target=TargetInfo(
                name=self._field(target, "target", "name", str),
                triple=self._field(target, "target", "triple", str),
                cpu=self._field(target, "target", "cpu", str),
                features=self._texts(target, "target", "features"),
            ),
            num_threads=self._natural(fields, "", "num_threads", least=1),
            inputs=self._each(fields, "inputs", self._tensor),
            outputs=self._each(fields, "outputs", self._tensor),
            arena_bytes=self._natural(fields, "", "arena_bytes"),
            kernels=self._each(fields, "kernels", self._kernel),
            prepared_bytes=self._natural(fields, "", "prepared_bytes", default=0),
            plan=tuple(self._field(fields, "", "plan", list, [])),
            layouts=tuple(self._field(fields, "", "layouts", list, [])),
            stayed_float=self._each(fields, "stayed_float", self._stayed_float, []),
            quantization=self._field(fields, "", "quantization", dict, {}),
            gates=self._each(fields, "gates", self._gate, []),
            curve=self._each(fields, "curve", self._point, []),
            batch=self._natural(fields, "", "batch", least=1, default=1),
            checksums=checksums,
        )
