"""The RPC server of a board without Python, built for a target."""

from __future__ import annotations

from pathlib import Path

from evo_tvm import __version__
from evo_tvm.board.compile_cpp import Source, Step, build_program
from evo_tvm.board.tvm_wheels import WHEELS, package_folder, tvm_version, write_libraries
from evo_tvm.executor.cache import Cache, digest, digest_files
from evo_tvm.target import Target

_HERE = Path(__file__).parent
_SERVER, _RUN = _HERE / "rpc_server", _HERE / "evo_run"
_SUPPORT = _SERVER / "tvm_support"
#: Of TVM's runtime, what RPC and the modules that it loads need.
_RUNTIME = """
    cpu_device_api device_api file_utils logging module tensor thread_pool threading_backend timer
    workspace_pool rpc/rpc_channel rpc/rpc_device_api rpc/rpc_endpoint rpc/rpc_event_impl rpc/rpc_local_session
    rpc/rpc_module rpc/rpc_server_env rpc/rpc_session rpc/rpc_socket_impl
    """.split()
_OPTIONS = ("-O1", "-w", "-DNDEBUG", "-DTVM_FFI_USE_LIBBACKTRACE=0", "-DTVM_FFI_BACKTRACE_ON_SEGFAULT=0")


def build_server(target: Target, folder: Path, cache: Cache, progress: Step | None = None) -> None:
    """Writes `rpc_server` into `folder`, for `target`'s architecture.

    Where PyPI has TVM for it, its runtime libraries go into `folder`/lib; elsewhere the runtime is compiled from the
    sources that every wheel of TVM has, and is part of the program. Raises CompileError: no compiler, or it failed.
    EvoError: the libraries cannot be downloaded. MissingExtraError: TVM is not installed.
    """
    if target.arch in WHEELS:
        (folder / "lib").mkdir(exist_ok=True)
        libraries = write_libraries(target.arch, folder / "lib", cache)
        link_flags = ["-Wl,-rpath,$ORIGIN/lib", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]
        sources = _own_sources()
    else:
        libraries = []
        # -rdynamic: a model's library finds TVM's functions in the program.
        link_flags = ["-rdynamic", "-static-libstdc++", "-static-libgcc"]
        sources = [*_own_sources(), *_tvm_sources()]
    build_program(sources, link_flags, libraries, target.triple, folder / "rpc_server", cache, progress)


def _own_sources() -> list[Source]:
    flags = (*_OPTIONS, f'-DEVO_TVM_VERSION="{__version__}"', *_includes())
    headers = digest(digest_files([*_SERVER.glob("*.h"), *_RUN.glob("*.h")]), _headers())
    return [Source(path, flags, headers) for path in (*sorted(_SERVER.glob("*.cc")), _RUN / "cpu.c")]


def _tvm_sources() -> list[Source]:
    runtime, ffi = package_folder("tvm") / "src" / "runtime", package_folder("tvm_ffi") / "src" / "ffi"
    paths = [runtime / f"{name}.cc" for name in _RUNTIME] + sorted([*ffi.glob("*.cc"), *ffi.glob("extra/*.cc")])
    flags, headers = (*_OPTIONS, *_includes()), _headers()
    return [Source(path, flags, headers) for path in paths]


def _includes() -> list[str]:
    """The headers of the wheels, and those that the wheels lack: TVM includes some of these as ../support/X.h."""
    folders = [package_folder("tvm") / "include", package_folder("tvm_ffi") / "include"]
    folders += [_SUPPORT, _SUPPORT / "support", _SUPPORT / "tvm" / "support"]
    return [f"-I{folder}" for folder in folders]


def _headers() -> str:
    return digest(tvm_version(), digest_files(_SUPPORT.glob("**/*.h")))
