"""What is in the wheels that release/wheels.py makes, and whether their extensions can load where they say."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made import ARM64, ROOT, WORK, beside, dist, run

Need = Callable[[str], str]
pytestmark = pytest.mark.ci

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
# What libSystem has had since before macOS 14, beyond what MLX's own binaries import from it.
SYSTEM = set((ROOT / "release" / "macos-libsystem.txt").read_text().split())
LIBCXX, LIBSYSTEM, LIBMLX = "/usr/lib/libc++.1.dylib", "/usr/lib/libSystem.B.dylib", "@rpath/libmlx.dylib"


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel and return its one extension."""
    with zipfile.ZipFile(wheel) as z:
        z.extractall(folder)
    (extension,) = (folder / "rvc_fast").glob("_ext.*.so")
    return extension


def tags(wheel: Path) -> str:
    return wheel.stem.split("-", 2)[2]


def nanobind_abi(binary: Path) -> set[bytes]:
    """Return the marks by which nanobind's modules recognise each other's types."""
    return set(
        re.findall(rb"nanobind_[a-z0-9_]+_abi\w*|_?(?:system|libstdc\+\+)\w*_abi\w*", binary.read_bytes())
    )


def module_name(binary: Path) -> None:
    assert b"PyInit__ext" in binary.read_bytes()


def no_paths(binary: Path) -> None:
    """Nothing of this machine's folders, which would make another hash elsewhere."""
    assert str(ROOT).encode() not in binary.read_bytes()


PYTHONS = {THIS, "3.14"}


@pytest.fixture(scope="module")
def macos() -> list[Path]:
    return sorted(dist("macos-arm64", ",".join(sorted(PYTHONS))).glob("*.whl"))


class TestMacos:
    """The wheels for Macs with Apple silicon."""

    @pytest.fixture(autouse=True)
    def tools(self, need_tool: Need) -> None:
        for program in ("clang++-19", "ld64.lld-19", "llvm-ar-19"):
            need_tool(program)

    def test_pythons(self, macos: list[Path]) -> None:
        """This one's, and one of those whose headers come from Debian."""
        made = {tags(w) for w in macos}
        for python in PYTHONS:
            tag = "cp" + python.replace(".", "")
            assert f"{tag}-{tag}-macosx_14_0_arm64" in made

    def test_each(self, macos: list[Path], tmp_path: Path) -> None:
        import lief
        import wheels

        mlx = wheels.mlx("macos-arm64")
        for wheel in macos:
            extension = unpack(wheel, tmp_path / wheel.stem)
            tag = tags(wheel).split("-")[0]
            assert extension.name == f"_ext.cpython-{tag[2:]}-darwin.so"
            fat = lief.MachO.parse(str(extension))  # kept, since what it holds lives in it
            binary = fat.at(0)
            assert binary.header.cpu_type == lief.MachO.Header.CPU_TYPE.ARM64
            assert binary.build_version.minos[:2] == [14, 0]
            assert binary.build_version.platform == lief.MachO.BuildVersion.PLATFORMS.MACOS
            assert {x.name for x in binary.libraries} == {LIBMLX, LIBCXX, LIBSYSTEM}
            assert [r.path for r in binary.rpaths] == ["@loader_path/../mlx/lib"]
            assert nanobind_abi(extension) == nanobind_abi(next(mlx.glob("core*.so"))) != set()
            module_name(extension)
            no_paths(extension)
            assert 'MLX = "' + wheels.mlx_version() in (extension.parent / "_built.py").read_text()

    def test_every_import_is_exported(self, macos: list[Path], tmp_path: Path) -> None:
        import lief
        import macos_sdk
        import wheels

        mlx = wheels.mlx("macos-arm64")
        libmlx = lief.MachO.parse(str(mlx / "lib" / "libmlx.dylib"))  # kept, since what it holds lives in it
        of_mlx = {s.name for s in libmlx.at(0).exported_symbols}
        of_system = {
            s for f in macos_sdk.binaries(mlx) for lib, s in macos_sdk.imports(f) if lib == LIBSYSTEM
        }
        exported = {LIBMLX: of_mlx, LIBCXX: set(macos_sdk.libcxx_exports(mlx)), LIBSYSTEM: of_system | SYSTEM}
        used = 0
        for wheel in macos:
            extension = unpack(wheel, tmp_path / wheel.stem)
            fat = lief.MachO.parse(str(extension))
            own = {s.name for s in fat.at(0).symbols}
            include = WORK / "python" / tags(wheel).split("-")[0].replace("cp3", "3.")
            declared = "".join(f.read_text(errors="replace") for f in include.rglob("*.h"))
            for library, symbol in macos_sdk.imports(extension):
                if library:
                    assert symbol in exported[library], (wheel.name, library, symbol)
                    used += library == LIBMLX
                elif not symbol.startswith("__Z"):  # the interpreter's
                    assert re.fullmatch("_(_?Py.*|_PyObject_.*)", symbol), symbol
                    assert re.search(rf"\b{symbol[1:]}\b", declared), (wheel.name, symbol)
                else:  # shared by all in the process that have it: the extension itself does, or the C++ library
                    assert symbol in own | exported[LIBCXX] | of_mlx, (wheel.name, symbol)
        assert used >= 20 * len(macos)

    def test_a_missing_import_is_noticed(self, tmp_path: Path) -> None:
        """Code that calls what macOS 14's libraries do not have does not link."""
        source = tmp_path / "new.cpp"
        source.write_text('extern "C" int not_there_yet(); int main() { return not_there_yet(); }\n')
        sdk = WORK / "sdk"
        command = ["clang++-19", "--target=arm64-apple-macos14.0", "-isysroot", sdk, "-mlinker-version=1000"]
        linked = run(*command, "--ld-path=/usr/bin/ld64.lld-19", source, "-o", tmp_path / "new")
        assert linked.returncode != 0
        assert "not_there_yet" in linked.stderr

    def test_again_is_the_same(self, macos: list[Path], tmp_path: Path) -> None:
        """Bindings compiled and everything linked once more give the same bytes."""
        (wheel,) = (w for w in macos if tags(w).startswith("cp" + THIS.replace(".", "")))
        build = WORK / "build-macos-arm64"
        for file in [*build.rglob("_ext*.so"), *build.rglob("bindings.cpp.o"), *build.rglob("librvc_*.a")]:
            file.unlink()
        arguments = ["macos-arm64", "--python", THIS, "--output", tmp_path]
        done = run(sys.executable, "release/wheels.py", *arguments)
        assert done.returncode == 0, done.stderr
        again = tmp_path / wheel.name
        assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


LINUX = {"linux-x86_64": ("x86_64", THIS), "linux-arm64": ("aarch64", ARM64)}


@pytest.mark.parametrize("system", [pytest.param("linux-x86_64", marks=pytest.mark.wheels), "linux-arm64"])
class TestLinux:
    """The wheels for Linux, as auditwheel sees them."""

    @pytest.fixture(autouse=True)
    def tools(self, need_tool: Need) -> None:
        for program in ("g++", "aarch64-linux-gnu-g++"):
            need_tool(program)

    def test_wheel(self, system: str, tmp_path: Path) -> None:
        import lief
        import wheels

        machine, python = LINUX[system]
        (wheel,) = dist(system, python).glob("*.whl")
        tag = "cp" + python.replace(".", "")
        glibc = re.fullmatch(rf"{tag}-{tag}-manylinux_2_(\d+)_{machine}", tags(wheel))
        assert glibc is not None
        assert int(glibc[1]) <= 35  # what MLX's own wheel needs
        extension = unpack(wheel, tmp_path)
        assert extension.name == f"_ext.cpython-{tag[2:]}-{machine}-linux-gnu.so"
        binary = lief.ELF.parse(str(extension))
        assert binary.header.machine_type == getattr(
            lief.ELF.ARCH, {"x86_64": "X86_64", "aarch64": "AARCH64"}[machine]
        )
        assert "libmlx.so" in binary.libraries
        assert not (tmp_path / "rvc_fast.libs").exists()
        dynamic = [e.runpath for e in binary.dynamic_entries if e.tag == lief.ELF.DynamicEntry.TAG.RUNPATH]
        assert dynamic == ["$ORIGIN/../mlx/lib"]
        mlx = wheels.mlx(system)
        libmlx = lief.ELF.parse(str(mlx / "lib" / "libmlx.so"))  # kept, since what it holds lives in it
        exported = {s.name for s in libmlx.exported_symbols}
        wanted = {s.name for s in binary.imported_symbols if s.name.startswith("_ZN3mlx4core")}
        assert len(wanted) >= 10
        assert {s for s in wanted if s not in exported} == set()
        assert nanobind_abi(extension) == nanobind_abi(next(mlx.glob("core*.so"))) != set()
        module_name(extension)
        no_paths(extension)


@pytest.mark.wheels
def test_the_wheel_of_this_machine_computes(tmp_path: Path) -> None:
    """Installed beside nothing of the checkout."""
    (wheel,) = dist("linux-x86_64", THIS).glob("*.whl")
    unpack(wheel, tmp_path)
    code = "from rvc_fast import native; print(native.load()[1], native.__file__)"
    result = beside(tmp_path, "-W", "error::UserWarning", "-c", code, LD_LIBRARY_PATH=_mlx_library())
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("compiled kernels, ")
    assert str(tmp_path) in result.stdout


def _mlx_library() -> str:
    code = "import mlx, pathlib; print(pathlib.Path(list(mlx.__path__)[0]) / 'lib')"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
