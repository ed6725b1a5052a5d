"""How code for RISC-V with the V extension is made: vectors of one fixed length, that of the CPU's registers.

TVM turns a vectorized loop of a target with V into a loop over masked chunks of whatever length the CPU grants, which
takes many times the instructions. So loops are vectorized as if there were no V, into plain vectors of fixed length,
and LLVM is told the exact width of the registers (VLEN): a vector then is a register, or a few, which one instruction
loads or stores whole. Code made so runs on CPUs of this VLEN and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import IRModule
from tvm.target import codegen

#: LLVM's instruction scheduler knows pipelines by the CPU's name. The models of most RISC-V CPUs, the generic one too,
#: make it load the weights of several steps ahead: more than the registers hold, whatever the pressure. This model
#: keeps the order of the source.
_PIPELINE = "sifive-p550"


def register_bits(target: tvm.target.Target) -> int:
    """VLEN, the bits of a vector register; 0 for other CPUs and for RISC-V without V."""
    fields = target.export()
    features = [str(f) for f in fields.get("mattr", ())]
    if not str(fields.get("mtriple", "")).startswith("riscv") or "+v" not in features:
        return 0
    widths = [f.removeprefix("+zvl").removesuffix("b") for f in features if f.startswith("+zvl")]
    return max([128, *map(int, widths)])


@tvm.transform.module_pass(opt_level=0, name="VectorizeLoop")
def vectorize_loop(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """TVM's pass, which sees no V."""
    targets = {gv.name_hint: func.attrs["target"] for gv, func in mod.functions.items()}
    if not any(map(register_bits, targets.values())):
        return tirx.transform.VectorizeLoop()(mod)
    hidden = IRModule(
        {gv: f.with_attr("target", _without_vectors(f.attrs["target"])) for gv, f in mod.functions.items()}
    )
    done = tirx.transform.VectorizeLoop()(hidden)
    return IRModule({gv: f.with_attr("target", targets[gv.name_hint]) for gv, f in done.functions.items()})


def _without_vectors(target: tvm.target.Target) -> tvm.target.Target:
    fields = {name: value for name, value in target.export().items() if name not in ("tag", "keys", "host")}
    features = [f for f in map(str, fields["mattr"]) if not f.lstrip("+-").startswith(("v", "zv"))]
    plain = tvm.target.Target({**fields, "mcpu": "generic-rv64", "mattr": features})
    return plain.with_host(plain)


def machine_fields(target: tvm.target.Target) -> Mapping[str, Any]:
    """What a target with V is replaced by where machine code is made of it: fields of the same names."""
    bits = register_bits(target)
    if not bits:
        return {}
    fields = target.export()
    features = [str(f) for f in fields["mattr"]]
    base = {"kind": "llvm", "mtriple": fields["mtriple"], "mabi": fields["mabi"]}
    allowed = codegen.llvm_get_cpu_features(target)
    implied = codegen.llvm_get_cpu_features(tvm.target.Target({**base, "mcpu": _PIPELINE}))
    extensions = sorted(f for f in map(str, implied) if "-" not in f)  # the others are advice to the compiler
    hidden = [f"-{f}" for f in extensions if f not in allowed and f"-{f}" not in features]
    return {
        "mcpu": _PIPELINE,
        "mattr": [*features, *hidden],
        "cl-opt": [
            f"-riscv-v-vector-bits-min:int={bits}",
            f"-riscv-v-vector-bits-max:uint={bits}",
            "-misched-cluster:bool=0",  # puts loads of neighbouring numbers together, and sums out of their order
        ],
    }
